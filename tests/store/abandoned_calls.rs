//! Calls that end at each of their awaits in turn: given up by their caller, by a panic, and
//! at their deadline. They pass every layer, to a real store.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use crate::{
    fixtures::{create, get, get_by_email, stored},
    forward::{Forward, Hooks},
};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use prost::Message;
use tonic::{Code, Status};
use tower::Service;
use user_service::{
    config::Config,
    domain::{Deadline, Error, Store, Write, WriteResult},
    feed::Feed,
    layers::{self, InFlight},
    proto::user::v1::{CreateUserRequest, User},
    rpc::{
        call::{Call, Inbound},
        methods,
    },
    service::{Health, Router, StoreSlot},
    telemetry::TraceConfig,
};

/// More awaits than a call has.
const MAX_AWAITS: usize = 100;

/// The timeout of a call that is to be late.
const TIMEOUT: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Cancel,
    Panic,
    Deadline,
}

/// One call, and where it ends.
#[derive(Debug)]
struct Plan {
    end: End,
    /// The number of the await, from 1 on.
    at: usize,
    awaits: AtomicUsize,
    is_cancelled: AtomicBool,
    is_begun: AtomicBool,
    begun: Instant,
}

impl Plan {
    fn new(end: End, at: usize) -> Arc<Self> {
        let (awaits, is_cancelled, is_begun) = Default::default();
        Arc::new(Self { end, at, awaits, is_cancelled, is_begun, begun: Instant::now() })
    }

    /// To be called before each await of the call is polled.
    fn pass(&self) -> Poll<()> {
        if self.awaits.fetch_add(1, SeqCst) + 1 == self.at {
            match self.end {
                End::Panic => panic!("at await {}", self.at),
                End::Cancel => {
                    self.is_cancelled.store(true, SeqCst);
                    return Poll::Pending;
                }
                End::Deadline => thread::sleep(TIMEOUT.saturating_sub(self.begun.elapsed())),
            }
        }
        Poll::Ready(())
    }

    fn is_reached(&self) -> bool {
        self.awaits.load(SeqCst) >= self.at
    }
}

/// A store in which each poll of a write is an await of its call.
struct Watched {
    store: Arc<dyn Store>,
    plan: Mutex<Arc<Plan>>,
}

#[async_trait]
impl Hooks for Watched {
    fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    async fn write(&self, write: Write, deadline: Deadline) -> Result<WriteResult, Error> {
        let plan = Arc::clone(&self.plan.lock().unwrap());
        let mut writing = pin!(self.store.write(write, deadline));
        poll_fn(|cx| {
            if plan.pass().is_pending() {
                return Poll::Pending;
            }
            plan.is_begun.store(true, Relaxed);
            writing.as_mut().poll(cx)
        })
        .await
    }
}

/// A request that comes in parts, each of which is waited for.
struct Parts {
    left: VecDeque<Bytes>,
    is_here: bool,
    plan: Arc<Plan>,
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.plan.pass().is_pending() {
            return Poll::Pending;
        }
        self.is_here = !self.is_here;
        if self.is_here {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.left.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }
}

/// Creates this user in three parts.
fn request(name: &str, plan: &Arc<Plan>) -> Request<Inbound<Parts>> {
    let email = format!("{name}@example.com");
    let user = User { name: name.into(), email, age: 36, ..User::default() };
    let message = CreateUserRequest { user: Some(user), user_id: name.into(), ..Default::default() };
    let message = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    let third = framed.len().div_ceil(3);
    let left = framed.chunks(third).map(Bytes::copy_from_slice).collect();
    let body = Parts { left, is_here: false, plan: Arc::clone(plan) };
    let mut request = Request::post("/user.v1.UserService/CreateUser").body(body).unwrap();
    request.headers_mut().insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
    if plan.end == End::Deadline {
        let timeout = format!("{}m", TIMEOUT.as_millis());
        request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    }
    Inbound::request(request, Call::default())
}

/// The code of the answer; `None` where the call was given up.
async fn answer<S, B>(service: &mut S, request: Request<Inbound<Parts>>, plan: &Plan) -> Option<Code>
where
    S: Service<Request<Inbound<Parts>>, Response = http::Response<B>, Error = Infallible>,
    B: Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let mut calling = pin!(async {
        let (head, body) = service.call(request).await.unwrap().into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        Status::from_header_map(&trailers.unwrap_or(head.headers)).expect("an answer has a status").code()
    });
    poll_fn(|cx| match calling.as_mut().poll(cx) {
        Poll::Pending if plan.is_cancelled.load(SeqCst) => Poll::Ready(None),
        polled => polled.map(Some),
    })
    .await
}

/// A write is whole or not there, the error of its caller is true, no permit is kept, and the
/// next write is made, wherever the call ends.
pub async fn a_call_may_end_at_any_await(store: Arc<dyn Store>) {
    let watched = Arc::new(Forward(Watched {
        store: Arc::clone(&store),
        plan: Mutex::new(Plan::new(End::Cancel, usize::MAX)),
    }));
    let slot = StoreSlot::default();
    slot.open(watched.clone(), Feed::new(watched.clone(), 1 << 20));
    let config = Config { call_log: false, ..Config::default() };
    let router = Router::new(&config, &slot, &Health::new(&config));
    let traces = TraceConfig { sampler: None, follows_callers: true };
    let (recorder, in_flight) = (PrometheusBuilder::new().build_recorder(), InFlight::default());
    let (mut service, _) = metrics::with_local_recorder(&recorder, || {
        layers::stack(router, methods::find, &config, traces, in_flight.clone(), None)
    });
    let mut awaits = MAX_AWAITS;
    for end in [End::Cancel, End::Panic, End::Deadline] {
        for at in 1..=awaits {
            let plan = Plan::new(end, at);
            *watched.0.plan.lock().unwrap() = Arc::clone(&plan);
            let what = format!("{end:?}-{at}").to_lowercase();
            let told = answer(&mut service, request(&what, &plan), &plan).await;
            // Queued behind it, so that the write has ended.
            stored(&store, create(&format!("after-{what}"))).await;
            let left = get(&store, &what).await;
            assert_eq!(left, get_by_email(&store, &what).await, "{what}");
            let is_true = match told {
                Some(Code::Ok) => left.is_some(),
                // A commit before it took so long that this one could not be in time.
                Some(Code::Unavailable) => left.is_none(),
                // Nothing that is said of a write that was not begun lets a caller expect it.
                None | Some(Code::Internal | Code::DeadlineExceeded) => {
                    left.is_none() || plan.is_begun.load(Relaxed)
                }
                Some(_) => false,
            };
            assert!(is_true, "{what} is answered with {told:?}, and stored is {left:?}");
            assert!(in_flight.listed().is_empty(), "{what} is still listed");
            let metrics = recorder.handle().render();
            for kind in ["unary", "write"] {
                let free = format!("grpc_server_admission_in_flight{{kind=\"{kind}\"}} 0");
                assert!(metrics.lines().any(|line| line == free), "{what} keeps a permit: {metrics}");
            }
            if !plan.is_reached() && end != End::Deadline {
                assert_eq!(told, Some(Code::Ok), "{what} ends by itself");
                awaits = at;
                break;
            }
            let expected = match end {
                End::Cancel => None,
                End::Panic => Some(Code::Internal),
                // It may be answered at the moment of its deadline, or be refused before.
                End::Deadline => Some(
                    told.filter(|code| matches!(code, Code::Ok | Code::Unavailable))
                        .unwrap_or(Code::DeadlineExceeded),
                ),
            };
            assert_eq!(told, expected, "{what}");
        }
        assert!((6..MAX_AWAITS).contains(&awaits), "{end:?}: {awaits} awaits");
    }
}
