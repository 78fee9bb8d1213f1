//! A small HTTP client: plain HTTP, kept-alive connections, bodies read whole, a deadline.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use std::{fmt::Write as _, time::Duration};

/// A client. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
    tenant: Option<String>,
}

/// An answer of any status.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// Whether the status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text, at most its first 500 bytes.
    #[must_use]
    pub fn text(&self) -> String {
        let head = &self.body[..self.body.len().min(500)];
        String::from_utf8_lossy(head).trim().to_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When the status is not 2xx or the body is not JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        if !self.is_success() {
            bail!("{}: {}", self.status, self.text());
        }
        serde_json::from_slice(&self.body).context("read the answer as JSON")
    }

    /// The `data` of a successful answer of Prometheus' query API.
    ///
    /// # Errors
    /// When it is not a success, or has warnings other than PromQL's own about the query's text: a test asks
    /// for complete answers.
    pub fn complete_data(&self) -> anyhow::Result<Value> {
        let mut json = self.json()?;
        let incomplete = json["warnings"].as_array().is_some_and(|warnings| {
            let of_the_text = |w: &Value| w.as_str().is_some_and(|w| w.starts_with("PromQL "));
            !warnings.iter().all(of_the_text)
        });
        if json["status"] != "success" || incomplete {
            bail!("{}", self.text());
        }
        Ok(json["data"].take())
    }
}

impl HttpClient {
    /// A client that waits at most `timeout` for a whole answer.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self::with_connect_timeout(timeout, timeout)
    }

    /// A client that also waits at most `connect` for a connection: nobody answers at an address that is gone.
    #[must_use]
    pub fn with_connect_timeout(timeout: Duration, connect: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self {
            client,
            timeout,
            tenant: None,
        }
    }

    /// A client that speaks for a tenant instead of the default one.
    #[must_use]
    pub fn with_tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.to_owned());
        self
    }

    /// Fetches a page.
    ///
    /// # Errors
    /// When no whole answer comes in time. Any status is an answer.
    pub async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    /// Posts a body with headers.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        self.send(Method::POST, url, headers, body.into()).await
    }

    /// Posts a remote-write request as Prometheus does.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn remote_write(&self, base: &str, body: impl Into<Bytes>) -> anyhow::Result<Answer> {
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        self.post(&format!("{base}/api/v1/write"), &headers, body)
            .await
    }

    /// Posts a form.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn post_form(
        &self,
        url: &str,
        parameters: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let form: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", percent_encode(value)))
            .collect();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.post(url, &headers, form.join("&")).await
    }

    /// The `data` of a successful answer of Prometheus' query API.
    ///
    /// # Errors
    /// When there is no answer, and as [`Answer::complete_data`].
    pub async fn query(&self, url: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Value> {
        self.post_form(url, parameters).await?.complete_data()
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
        if let Some(tenant) = &self.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        let request = request.body(Full::new(body)).context("make a request")?;
        let whole = async {
            let answer = self.client.request(request).await?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await?.to_bytes();
            anyhow::Ok(Answer { status, body })
        };
        let answer = tokio::time::timeout(self.timeout, whole).await;
        answer
            .with_context(|| format!("{url}: no answer within {:?}", self.timeout))?
            .with_context(|| url.to_owned())
    }
}

/// The text with everything but letters, digits and `-._~` as `%XX`.
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[test]
fn forms_are_encoded() {
    assert_eq!(percent_encode("a b{c=\"d\"}"), "a%20b%7Bc%3D%22d%22%7D");
}
