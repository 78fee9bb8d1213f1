//! The node's HTTP server, from the first moment: who asks while the node starts learns why it is not ready,
//! and a probe learns that it lives. The routes behind it are exchanged as the node comes up.

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{Request, State},
    response::Response,
};
use std::sync::Arc;
use tokio::{net::TcpListener, runtime::Handle, sync::watch, task::JoinHandle};
use tower::ServiceExt;
use trefoil_api::starting_router;

/// The running server.
pub(crate) struct Front {
    routes: Arc<ArcSwap<Router>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl Front {
    /// Serves at the listener until `stopping` says true; then ends when the requests under way have ended.
    pub(crate) fn start(
        listener: TcpListener,
        on: &Handle,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let reason = Arc::new(|| "it is looking at its data directory".to_owned());
        let routes = Arc::new(ArcSwap::from_pointee(starting_router(reason)));
        let outer = Router::new().fallback(pass).with_state(routes.clone());
        let server = on.spawn(async move {
            axum::serve(listener, outer)
                .with_graceful_shutdown(until_true(stopping))
                .await
        });
        Self { routes, server }
    }

    /// From now on says this to whoever asks why the node is not ready.
    pub(crate) fn is_starting(&self, reason: impl Fn() -> String + Send + Sync + 'static) {
        self.serve(starting_router(Arc::new(reason)));
    }

    /// From now on answers by these routes.
    pub(crate) fn serve(&self, routes: Router) {
        self.routes.store(Arc::new(routes));
    }

    /// Resolves when the server has ended.
    pub(crate) async fn ended(self) {
        self.server.await.ok();
    }
}

async fn pass(State(routes): State<Arc<ArcSwap<Router>>>, request: Request) -> Response {
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
