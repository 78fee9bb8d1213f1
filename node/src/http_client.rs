//! A small HTTP client for the command line and the demo: plain HTTP, bounded answers, deadlines.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::time::Duration;

/// Answers larger than this are refused.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A client with kept-alive connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
}

/// An answer with its body read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as text, shortened, for messages.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(500)])
            .trim()
            .to_owned()
    }
}

impl HttpClient {
    pub(crate) fn new(timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, timeout }
    }

    /// Fetches a page.
    ///
    /// # Errors
    /// When the server cannot be reached or does not answer in time; any status is an answer.
    pub(crate) async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    /// Fetches a page with headers.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub(crate) async fn get_with(
        &self,
        url: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        self.send(Method::GET, url, headers, Bytes::new()).await
    }

    /// Posts a body with headers.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        self.send(Method::POST, url, headers, body).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(body))
            .with_context(|| format!("read the URL {url}"))?;
        let exchange = async {
            let sent = self.client.request(request).await;
            let response = sent.map_err(in_words)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            anyhow::Ok(Answer { status, body })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer.with_context(|| format!("ask {url}")),
            Err(_) => bail!("ask {url}: no answer within {:?}", self.timeout),
        }
    }
}

/// Why a request brought no answer. That a server is away is said without the layers in between.
pub(crate) fn in_words(error: legacy::Error) -> anyhow::Error {
    if !error.is_connect() {
        return error.into();
    }
    let error = anyhow::Error::from(error);
    anyhow::anyhow!("cannot connect: {}", error.root_cause())
}

/// Encodes text for use inside a query string.
pub(crate) fn query_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}
