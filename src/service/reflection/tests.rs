use std::collections::BTreeSet;

use futures_util::StreamExt;
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, codec::CompressionEncoding};

use crate::{
    config::Config,
    service::{
        Health, Router, StoreSlot,
        testing::{Transport, details, transport},
    },
};

const ERROR_DETAILS: [&str; 10] = [
    "google.rpc.RetryInfo",
    "google.rpc.DebugInfo",
    "google.rpc.QuotaFailure",
    "google.rpc.ErrorInfo",
    "google.rpc.PreconditionFailure",
    "google.rpc.BadRequest",
    "google.rpc.RequestInfo",
    "google.rpc.ResourceInfo",
    "google.rpc.Help",
    "google.rpc.LocalizedMessage",
];

fn serve(article_api: bool) -> (Transport, Health) {
    let config = Config { article_api, ..Config::default() };
    let health = Health::new(&Config { article_api, ..Config::default() });
    (transport(Router::new(&config, &StoreSlot::default(), &health)), health)
}

fn decode(files: &[Vec<u8>]) -> Vec<FileDescriptorProto> {
    files.iter().map(|file| prost::Message::decode(file.as_slice()).unwrap()).collect()
}

/// The same questions to both versions.
macro_rules! tests_of {
    ($version:ident) => {
        mod $version {
            use tonic_reflection::pb::$version::{
                ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse,
                server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest::{
                    self, AllExtensionNumbersOfType, FileByFilename, FileContainingExtension,
                    FileContainingSymbol, ListServices,
                },
                server_reflection_response::MessageResponse,
            };

            use super::*;

            /// An open stream to ask on.
            struct Stream {
                questions: mpsc::UnboundedSender<ServerReflectionRequest>,
                answers: tonic::Streaming<ServerReflectionResponse>,
            }

            impl Stream {
                async fn open(server: &Transport) -> Self {
                    let (questions, receiver) = mpsc::unbounded_channel();
                    let answers = ServerReflectionClient::new(server.clone())
                        .send_compressed(CompressionEncoding::Gzip)
                        .server_reflection_info(UnboundedReceiverStream::new(receiver))
                        .await
                        .unwrap()
                        .into_inner();
                    Self { questions, answers }
                }

                async fn ask(&mut self, question: impl Into<Option<MessageRequest>>) -> MessageResponse {
                    let request =
                        ServerReflectionRequest { host: "here".into(), message_request: question.into() };
                    self.questions.send(request.clone()).unwrap();
                    let answer = self.answers.next().await.unwrap().unwrap();
                    assert_eq!((answer.valid_host, answer.original_request), ("here".into(), Some(request)));
                    answer.message_response.unwrap()
                }

                async fn error(&mut self, question: impl Into<Option<MessageRequest>>) -> Code {
                    match self.ask(question).await {
                        MessageResponse::ErrorResponse(error) => Code::from(error.error_code),
                        other => panic!("{other:?}"),
                    }
                }

                async fn services(&mut self) -> BTreeSet<String> {
                    match self.ask(ListServices(String::new())).await {
                        MessageResponse::ListServicesResponse(list) => {
                            list.service.into_iter().map(|service| service.name).collect()
                        }
                        other => panic!("{other:?}"),
                    }
                }

                async fn files(&mut self, question: MessageRequest) -> Vec<FileDescriptorProto> {
                    match self.ask(question).await {
                        MessageResponse::FileDescriptorResponse(files) => {
                            decode(&files.file_descriptor_proto)
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }

            #[tokio::test]
            async fn every_service_is_listed_and_described_to_its_last_import() {
                let (server, _) = serve(true);
                let mut stream = Stream::open(&server).await;
                let services = stream.services().await;
                let expected = [
                    "UserService",
                    "grpc.health.v1.Health",
                    "grpc.reflection.v1.ServerReflection",
                    "grpc.reflection.v1alpha.ServerReflection",
                    "user.v1.UserService",
                ];
                assert_eq!(services, expected.map(String::from).into());
                let mut seen = BTreeSet::new();
                let mut missing = Vec::new();
                let symbols = services.into_iter().chain(ERROR_DETAILS.map(String::from));
                for symbol in symbols {
                    for file in stream.files(FileContainingSymbol(symbol)).await {
                        missing.extend(file.dependency.clone());
                        seen.insert(file.name().to_owned());
                    }
                }
                while let Some(name) = missing.pop() {
                    if seen.insert(name.clone()) {
                        for file in stream.files(FileByFilename(name)).await {
                            missing.extend(file.dependency.clone());
                        }
                    }
                }
                assert!(seen.contains("google/protobuf/field_mask.proto"), "{seen:?}");
            }

            #[tokio::test]
            async fn comments_are_served() {
                let (server, _) = serve(true);
                let mut stream = Stream::open(&server).await;
                for symbol in ["user.v1.UserService", "UserService", "grpc.health.v1.Health"] {
                    let file = stream.files(FileContainingSymbol(symbol.into())).await.remove(0);
                    let comments = file.source_code_info.unwrap_or_default().location;
                    assert!(comments.iter().any(|place| place.leading_comments.is_some()), "{symbol}");
                }
            }

            #[tokio::test]
            async fn an_article_that_is_switched_off_is_nowhere() {
                let (server, _) = serve(false);
                let mut stream = Stream::open(&server).await;
                assert!(!stream.services().await.contains("UserService"));
                for question in
                    [FileContainingSymbol("UserService".into()), FileByFilename("user.proto".into())]
                {
                    assert_eq!(stream.error(question).await, Code::NotFound);
                }
                let file = stream.files(FileContainingSymbol("user.v1.UserService".into())).await.remove(0);
                assert!(file.source_code_info.is_some(), "comments are kept");
            }

            #[tokio::test]
            async fn a_question_without_an_answer_is_answered_and_the_stream_goes_on() {
                let (server, _) = serve(true);
                let mut stream = Stream::open(&server).await;
                let extension = |containing_type: &str| ExtensionRequest {
                    containing_type: containing_type.into(),
                    extension_number: 7,
                };
                for (question, code) in [
                    (Some(FileContainingSymbol("nobody".into())), Code::NotFound),
                    (Some(FileContainingSymbol(String::new())), Code::NotFound),
                    (Some(FileByFilename("nothing.proto".into())), Code::NotFound),
                    (Some(FileContainingExtension(extension("user.v1.User"))), Code::NotFound),
                    (Some(FileContainingExtension(extension("nobody"))), Code::NotFound),
                    (Some(AllExtensionNumbersOfType("nobody".into())), Code::NotFound),
                    (Some(AllExtensionNumbersOfType("user.v1.UserService".into())), Code::NotFound),
                    (None, Code::InvalidArgument),
                ] {
                    assert_eq!(stream.error(question.clone()).await, code, "{question:?}");
                }
                match stream.ask(AllExtensionNumbersOfType("user.v1.User".into())).await {
                    MessageResponse::AllExtensionNumbersResponse(numbers) => {
                        assert_eq!(
                            (&*numbers.base_type_name, numbers.extension_number.len()),
                            ("user.v1.User", 0)
                        );
                    }
                    other => panic!("{other:?}"),
                }
                assert!(stream.services().await.contains("user.v1.UserService"));
            }

            #[tokio::test]
            async fn every_kind_of_symbol_is_found_in_its_file() {
                let (server, _) = serve(true);
                let mut stream = Stream::open(&server).await;
                for symbol in [
                    "user.v1.UserService",
                    "user.v1.UserService.GetUser",
                    "user.v1.GetUserRequest",
                    "user.v1.GetUserRequest.id",
                    "user.v1.ImportUsersResponse.result",
                ] {
                    let file = stream.files(FileContainingSymbol(symbol.into())).await.remove(0);
                    assert_eq!(file.name(), "user/v1/user_service.proto", "{symbol}");
                }
                let nested = "grpc.health.v1.HealthCheckResponse";
                for symbol in ["ServingStatus", "SERVING"] {
                    let symbol = format!("{nested}.{symbol}");
                    let file = stream.files(FileContainingSymbol(symbol)).await.remove(0);
                    assert_eq!(file.name(), "grpc/health/v1/health.proto");
                }
            }

            #[tokio::test]
            async fn a_stream_ends_when_its_client_has_no_more_questions() {
                let (server, _) = serve(true);
                let mut stream = Stream::open(&server).await;
                stream.services().await;
                drop(stream.questions);
                assert!(stream.answers.next().await.is_none());
            }

            #[tokio::test]
            async fn a_stream_ends_with_the_drain() {
                let (server, health) = serve(true);
                let mut stream = Stream::open(&server).await;
                stream.services().await;
                health.set_draining();
                stream.services().await;
                health.end_streams();
                let status = stream.answers.next().await.unwrap().unwrap_err();
                details(&status, Code::Unavailable, "DRAINING");
            }
        }
    };
}

#[test]
fn no_file_declares_an_extension() {
    for set in super::SETS {
        let set: prost_types::FileDescriptorSet = prost::Message::decode(set).unwrap();
        for file in set.file {
            let in_messages = file.message_type.iter().any(|message| !message.extension.is_empty());
            assert!(
                file.extension.is_empty() && !in_messages,
                "{}: reflection would not find it",
                file.name()
            );
        }
    }
}

tests_of!(v1);
tests_of!(v1alpha);
