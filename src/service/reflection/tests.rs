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
                ServerReflectionRequest, ServerReflectionResponse,
                server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest::{
                    self, FileByFilename, FileContainingSymbol, ListServices,
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

                async fn ask(&mut self, question: MessageRequest) -> Result<MessageResponse, tonic::Status> {
                    let request =
                        ServerReflectionRequest { message_request: Some(question), ..Default::default() };
                    self.questions.send(request).unwrap();
                    let answer = self.answers.next().await.unwrap()?;
                    Ok(answer.message_response.unwrap())
                }

                async fn services(&mut self) -> BTreeSet<String> {
                    match self.ask(ListServices(String::new())).await.unwrap() {
                        MessageResponse::ListServicesResponse(list) => {
                            list.service.into_iter().map(|service| service.name).collect()
                        }
                        other => panic!("{other:?}"),
                    }
                }

                async fn files(&mut self, question: MessageRequest) -> Vec<FileDescriptorProto> {
                    match self.ask(question).await.unwrap() {
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
                    let mut stream = Stream::open(&server).await;
                    assert_eq!(stream.ask(question).await.unwrap_err().code(), Code::NotFound);
                }
                let file = stream.files(FileContainingSymbol("user.v1.UserService".into())).await.remove(0);
                assert!(file.source_code_info.is_some(), "comments are kept");
            }

            #[tokio::test]
            async fn an_unknown_symbol_is_an_error_with_details() {
                let (server, _) = serve(true);
                let status = Stream::open(&server).await.ask(FileContainingSymbol("nobody".into())).await;
                details(&status.unwrap_err(), Code::NotFound, "NOT_FOUND");
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

tests_of!(v1);
tests_of!(v1alpha);
