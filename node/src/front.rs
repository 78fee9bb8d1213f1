//! The node's servers for clients, from the first moment: who asks while the node starts learns why it is not
//! ready, and a probe learns that it lives. The routes behind them are exchanged as the node comes up.

mod first_line;

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{Request, State},
    response::Response,
};
use first_line::Lenient;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, runtime::Handle, sync::watch, task::JoinHandle};
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tower::ServiceExt;
use trefoil_api::{Api, grpc_starting_router, starting_router};

/// A gRPC client that says nothing for so long is asked whether it is there, and given up when it is not.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Calls of one gRPC connection at once; further ones wait at the client.
const CALLS_AT_ONCE_MAX: u32 = 128;

/// Where the servers listen.
pub(crate) struct Listeners {
    pub(crate) http: TcpListener,
    /// The port that OpenTelemetry's exporters take for HTTP.
    pub(crate) otlp_http: Option<TcpListener>,
    /// The port that OpenTelemetry's exporters take for gRPC.
    pub(crate) otlp_grpc: Option<TcpListener>,
}

type Exchanged = Arc<ArcSwap<Router>>;

/// The running servers.
pub(crate) struct Front {
    http: Exchanged,
    otlp_http: Exchanged,
    otlp_grpc: Exchanged,
    servers: Vec<JoinHandle<()>>,
}

impl Front {
    /// Serves at the listeners until `stopping` says true; then ends when the requests under way have ended.
    pub(crate) fn start(
        listeners: Listeners,
        on: &Handle,
        stopping: &watch::Receiver<bool>,
    ) -> Self {
        let starting = starting_router(Arc::new(|| {
            "it is looking at its data directory".to_owned()
        }));
        let front = Self {
            http: Arc::new(ArcSwap::from_pointee(starting.clone())),
            otlp_http: Arc::new(ArcSwap::from_pointee(starting)),
            otlp_grpc: Arc::new(ArcSwap::from_pointee(grpc_starting_router(
                "it is starting",
            ))),
            servers: Vec::new(),
        };
        let mut servers = vec![on.spawn(serve_http(listeners.http, &front.http, stopping))];
        if let Some(listener) = listeners.otlp_http {
            servers.push(on.spawn(serve_http(listener, &front.otlp_http, stopping)));
        }
        if let Some(listener) = listeners.otlp_grpc {
            servers.push(on.spawn(serve_grpc(listener, &front.otlp_grpc, stopping)));
        }
        Self { servers, ..front }
    }

    /// From now on says this to whoever asks why the node is not ready.
    pub(crate) fn is_starting(&self, reason: impl Fn() -> String + Send + Sync + 'static) {
        let routes = Arc::new(starting_router(Arc::new(reason)));
        self.http.store(routes.clone());
        self.otlp_http.store(routes);
    }

    /// From now on answers for the node.
    pub(crate) fn serve(&self, api: &Api) {
        self.http.store(Arc::new(api.http()));
        self.otlp_http.store(Arc::new(api.otlp_http()));
        self.otlp_grpc.store(Arc::new(api.otlp_grpc()));
    }

    /// Resolves when all servers have ended.
    pub(crate) async fn ended(self) {
        for server in self.servers {
            server.await.ok();
        }
    }
}

fn serve_http(
    listener: TcpListener,
    routes: &Exchanged,
    stopping: &watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let outer = Router::new().fallback(pass).with_state(routes.clone());
    let stopping = until_true(stopping.clone());
    async move {
        let served = axum::serve(Lenient(listener), outer).with_graceful_shutdown(stopping);
        if let Err(error) = served.await {
            tracing::error!(%error, "the HTTP server ended");
        }
    }
}

fn serve_grpc(
    listener: TcpListener,
    routes: &Exchanged,
    stopping: &watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let outer = Router::new().fallback(pass).with_state(routes.clone());
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let stopping = until_true(stopping.clone());
    async move {
        let served = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(Some(CALLS_AT_ONCE_MAX))
            .add_routes(Routes::from(outer))
            .serve_with_incoming_shutdown(incoming, stopping);
        if let Err(error) = served.await {
            tracing::error!(%error, "the gRPC server ended");
        }
    }
}

async fn pass(State(routes): State<Exchanged>, request: Request) -> Response {
    let routes = Router::clone(&routes.load());
    match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Resolves when the channel says true or is gone.
pub(crate) async fn until_true(mut stopping: watch::Receiver<bool>) {
    stopping.wait_for(|stop| *stop).await.ok();
}
