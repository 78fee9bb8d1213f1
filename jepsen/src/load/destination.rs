//! Where a writer or querier sends its requests.

use super::{ANSWER_WAIT_MAX, CONNECT_WAIT_MAX};
use crate::{HttpClient, http::Answer, service::ServiceClient};

/// One node, whatever becomes of it, or a service.
pub(super) enum Destination {
    /// The node at this base URL.
    Node(String),
    /// The nodes of a service, with a second try at another one.
    Service(ServiceClient),
}

impl Destination {
    /// A client of its own for it.
    pub(super) fn client(&self) -> HttpClient {
        match self {
            Self::Node(_) => HttpClient::new(ANSWER_WAIT_MAX),
            Self::Service(_) => HttpClient::with_connect_timeout(ANSWER_WAIT_MAX, CONNECT_WAIT_MAX),
        }
    }

    /// Sends a request, given how it is sent to a base URL.
    ///
    /// # Errors
    /// When there is no answer. Any status is an answer.
    pub(super) async fn ask<F>(&self, send: impl Fn(String) -> F) -> anyhow::Result<Answer>
    where
        F: Future<Output = anyhow::Result<Answer>>,
    {
        match self {
            Self::Node(url) => send(url.clone()).await,
            Self::Service(client) => client.ask(send).await,
        }
    }
}
