"""Questions to reflection that have no answer, each followed by one that has.

usage: reflection.py ADDR
"""

import sys

import grpc
from checks import check
from grpc_reflection.v1alpha import reflection_pb2 as pb

NOT_FOUND, INVALID_ARGUMENT = grpc.StatusCode.NOT_FOUND.value[0], grpc.StatusCode.INVALID_ARGUMENT.value[0]


def extension(of):
    return pb.ExtensionRequest(containing_type=of, extension_number=7)


UNANSWERED = [
    ({"file_containing_symbol": "nobody.Knows"}, NOT_FOUND),
    ({"file_by_filename": "nothing.proto"}, NOT_FOUND),
    ({"file_containing_extension": extension("user.v1.User")}, NOT_FOUND),
    ({"file_containing_extension": extension("nobody.Knows")}, NOT_FOUND),
    ({"all_extension_numbers_of_type": "nobody.Knows"}, NOT_FOUND),
    ({}, INVALID_ARGUMENT),
]


def ask(channel, version):
    """All questions on one stream."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=pb.ServerReflectionRequest.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString)
    requests = []
    for question, _ in UNANSWERED:
        requests.append(pb.ServerReflectionRequest(host="here", **question))
        requests.append(pb.ServerReflectionRequest(list_services=""))
    requests.append(pb.ServerReflectionRequest(all_extension_numbers_of_type="user.v1.User"))
    answers = list(call(iter(requests), timeout=60))
    check(len(answers) == len(requests), f"{version}: {len(answers)} answers to {len(requests)} requests")
    for request, answer in zip(requests, answers):
        check(answer.original_request == request, f"{version}: {answer.original_request} in place of {request}")
        check(answer.valid_host == request.host, f"{version}: the host of {answer}")
    for (question, code), answer in zip(UNANSWERED, answers[::2]):
        check(answer.error_response.error_code == code, f"{version}: {question}: {answer}")
        check(answer.error_response.error_message, f"{version}: {question} has no message")
    for answer in answers[1:-1:2]:
        names = {service.name for service in answer.list_services_response.service}
        check("user.v1.UserService" in names, f"{version}: {names}")
    numbers = answers[-1].all_extension_numbers_response
    check((numbers.base_type_name, len(numbers.extension_number)) == ("user.v1.User", 0), f"{version}: {numbers}")


def main():
    with grpc.insecure_channel(sys.argv[1]) as channel:
        for version in ["v1", "v1alpha"]:
            ask(channel, version)
    print("ok")


main()
