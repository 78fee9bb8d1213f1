//! The administration API. Its documents are described in `docs/admin-api.md`.

use super::{
    Shared,
    answer::{document, takes_gzip},
    body,
    parameters::{Parameters, declared_length},
    tenant,
};
use crate::{
    ApiError, TenantName,
    admin::{
        DigestsRequest, LimitsRequest, NodeRequest, PrepareStopRequest, PutValue, RetentionRequest,
    },
};
use axum::{
    extract::{Request, State},
    http::HeaderMap,
    response::Response,
};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Largest document of a `POST`.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// The longest that a node puts off its stop, seconds; longer wishes are refused.
const PREPARE_STOP_SECONDS_MAX: u64 = 3600;

/// `GET cluster`.
pub(super) async fn cluster(State(app): Shared, headers: HeaderMap) -> Response {
    document(app.backend.cluster().await, takes_gzip(&headers))
}

/// `GET movements`.
pub(super) async fn movements(State(app): Shared, headers: HeaderMap) -> Response {
    document(app.backend.movements().await, takes_gzip(&headers))
}

/// `GET digests?start=&end=`.
pub(super) async fn digests(State(app): Shared, request: Request) -> Response {
    let gzip = takes_gzip(request.headers());
    let outcome = async {
        let parameters = Parameters::of(request, &app).await?;
        let request = DigestsRequest {
            start: parameters.time("start")?,
            end: parameters.time("end")?,
        };
        if let (Some(start), Some(end)) = (request.start, request.end)
            && end <= start
        {
            return Err(ApiError::parameter("end", "end must be later than start"));
        }
        app.backend.digests(request).await
    };
    document(outcome.await, gzip)
}

/// `POST cluster/drain` with `{"node":"name or id"}`.
pub(super) async fn drain(State(app): Shared, request: Request) -> Response {
    let outcome = async { app.backend.drain(&named_node(request).await?).await };
    document(outcome.await, false)
}

/// `POST cluster/undrain` with `{"node":"name or id"}`.
pub(super) async fn undrain(State(app): Shared, request: Request) -> Response {
    let outcome = async { app.backend.undrain(&named_node(request).await?).await };
    document(outcome.await, false)
}

/// `POST cluster/remove` with `{"node":"name or id"}`.
pub(super) async fn remove(State(app): Shared, request: Request) -> Response {
    let outcome = async { app.backend.remove(&named_node(request).await?).await };
    document(outcome.await, false)
}

/// `POST node/prepare-stop` with `{"wait_seconds":N}`.
pub(super) async fn prepare_stop(State(app): Shared, request: Request) -> Response {
    let outcome = async {
        let wanted: PrepareStopRequest = read(request, "{\"wait_seconds\":N}").await?;
        if wanted.wait_seconds > PREPARE_STOP_SECONDS_MAX {
            return Err(ApiError::BadData(format!(
                "wait_seconds is {}, more than {PREPARE_STOP_SECONDS_MAX}; nothing was begun",
                wanted.wait_seconds
            )));
        }
        let wait = Duration::from_secs(wanted.wait_seconds);
        app.backend.prepare_stop(wait).await
    };
    document(outcome.await, false)
}

/// `GET retention`.
pub(super) async fn retention(State(app): Shared) -> Response {
    document(app.backend.retention().await, false)
}

/// `POST retention` with `{"hours":N}`.
pub(super) async fn set_retention(State(app): Shared, request: Request) -> Response {
    let outcome = async {
        let wanted: RetentionRequest = read(request, "{\"hours\":N}").await?;
        if wanted.tenant.is_some() || wanted.selector.is_some() {
            return Err(ApiError::BadData(
                "this changes the whole cluster's time; those of tenants are changed at retention/tenants"
                    .to_owned(),
            ));
        }
        app.backend.set_retention(wanted).await
    };
    document(outcome.await, false)
}

/// `POST retention/tenants` with `{"tenant":"T","hours":N}`, and for some of its series with
/// `{"tenant":"T","selector":"S","hours":N}`. A path of its own, because programs that know only the cluster's time would change
/// that one.
pub(super) async fn set_tenant_retention(State(app): Shared, request: Request) -> Response {
    let outcome = async {
        let shape = "{\"tenant\":\"T\",\"selector\":\"S\",\"hours\":N}";
        let wanted: RetentionRequest = read(request, shape).await?;
        if wanted.tenant.is_none() {
            return Err(ApiError::BadData(format!("name the tenant, as {shape}")));
        }
        app.backend.set_retention(wanted).await
    };
    document(outcome.await, false)
}

/// `GET limits?tenant=T`; without a tenant, the defaults of all.
pub(super) async fn limits(State(app): Shared, request: Request) -> Response {
    let outcome = async {
        let parameters = Parameters::of(request, &app).await?;
        let tenant = parameters.get("tenant").map(TenantName::new).transpose()?;
        app.backend.limits_set(tenant.as_ref()).await
    };
    document(outcome.await, false)
}

/// `POST limits` with `{"tenant":"T","limits":{...}}`.
pub(super) async fn set_limits(State(app): Shared, request: Request) -> Response {
    let outcome = async {
        let wanted: LimitsRequest =
            read(request, "{\"tenant\":\"T\",\"limits\":{\"NAME\":VALUE}}").await?;
        let tenant = wanted.tenant.as_deref().map(TenantName::new).transpose()?;
        let backend = &app.backend;
        backend
            .set_limits(tenant.as_ref(), wanted.limits, wanted.expected)
            .await
    };
    document(outcome.await, false)
}

/// Mimir's `GET user_limits`: what is in effect for who asks.
pub(super) async fn user_limits(State(app): Shared, headers: HeaderMap) -> Response {
    let outcome = tenant(&headers).map(|tenant| (*app.backend.limits(&tenant)).clone());
    document(outcome, false)
}

/// `GET values?key=K`.
pub(super) async fn value(State(app): Shared, request: Request) -> Response {
    let outcome = async {
        let parameters = Parameters::of(request, &app).await?;
        let key = parameters
            .get("key")
            .ok_or_else(|| ApiError::parameter("key", "name the key: values?key=K"))?;
        app.backend.value(key).await
    };
    document(outcome.await, false)
}

/// `POST values` with `{"key":"K","value":"V","expected_version":N}`.
pub(super) async fn put_value(State(app): Shared, request: Request) -> Response {
    let outcome = async {
        let put: PutValue = read(
            request,
            "{\"key\":\"K\",\"value\":\"V\",\"expected_version\":N}",
        )
        .await?;
        app.backend.put_value(put).await
    };
    document(outcome.await, false)
}

async fn named_node(request: Request) -> Result<String, ApiError> {
    let request: NodeRequest = read(request, "{\"node\":\"NAME\"}").await?;
    Ok(request.node)
}

async fn read<T: DeserializeOwned>(request: Request, expected: &str) -> Result<T, ApiError> {
    let declared = declared_length(request.headers());
    let body = body::collect(request.into_body(), declared, DOCUMENT_BYTES_MAX, None).await?;
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::BadData(format!("expected {expected}: {error}")))
}
