//! The service that clients reach nodes through, as Kubernetes has it: the addresses of the nodes that were ready a
//! moment ago. A request that a node does not take is sent once more, to another node; what fails then has failed.
//!
//! Whoever plays the controller sets the addresses. Nothing is looked up or probed here.

use crate::http::Answer;
use anyhow::Context;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::error::Elapsed;

/// Reasons of first failures that are kept for a message.
const REASONS_KEPT_MAX: usize = 20;

/// The addresses, and what became of all requests. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Service(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    nodes: Vec<String>,
    figures: ServiceFigures,
}

/// What became of the requests so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFigures {
    /// Requests, each counted once however often it was sent.
    pub requests: u64,
    /// Requests that the first node did not take.
    pub first_failures: u64,
    /// Those of them that another node answered otherwise than with 503.
    pub retried: u64,
    /// Requests that failed: both times, or in a way that asks for no second time.
    pub failed: u64,
    /// The longest time until a request was answered or given up, both times included.
    pub slowest: Duration,
    /// Why first nodes did not take requests, and why requests failed: the first 20.
    pub reasons: Vec<String>,
}

impl Service {
    /// Sets the base URLs of the nodes that requests go to.
    pub fn set_nodes(&self, urls: Vec<String>) {
        self.state().nodes = urls;
    }

    /// What became of all requests so far.
    #[must_use]
    pub fn figures(&self) -> ServiceFigures {
        self.state().figures.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a client chooses among the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// The next one for each request, as clients do that connect anew.
    Roaming,
    /// The same one as long as it takes requests, also when it is no longer among the nodes: a connection that is
    /// kept stays where it leads.
    Faithful,
}

/// One client of a service.
pub(crate) struct ServiceClient {
    service: Service,
    habit: Habit,
    turn: AtomicUsize,
    kept: Mutex<Option<String>>,
}

impl ServiceClient {
    /// A client whose first node is the one at this place; later ones follow it.
    pub(crate) fn new(service: &Service, habit: Habit, turn: usize) -> Self {
        Self {
            service: service.clone(),
            habit,
            turn: AtomicUsize::new(turn),
            kept: Mutex::new(None),
        }
    }

    /// Sends a request, which is to be the same each time, to one node and if need be to another.
    ///
    /// # Errors
    /// When there is no answer, or no node. Any status is an answer.
    pub(crate) async fn ask<F>(&self, send: impl Fn(String) -> F) -> anyhow::Result<Answer>
    where
        F: Future<Output = anyhow::Result<Answer>>,
    {
        let begun = Instant::now();
        let first = self.choose(None);
        let mut answer = send_to(first.clone(), &send).await;
        let refused = refusal(&answer);
        if let Some(why) = &refused {
            self.note(format!("at first: {why}"));
            let second = self.choose(first.as_deref());
            answer = send_to(second, &send).await;
        }
        let failed = match &answer {
            Ok(answer) if answer.is_success() => None,
            Ok(answer) => Some(format!("{} {}", answer.status, answer.text())),
            Err(error) => Some(format!("{error:#}")),
        };
        if let Some(why) = &failed {
            self.note(format!("failed: {why}"));
        }
        let figures = &mut self.service.state().figures;
        figures.requests += 1;
        figures.first_failures += u64::from(refused.is_some());
        figures.retried += u64::from(refused.is_some() && failed.is_none());
        figures.failed += u64::from(failed.is_some());
        figures.slowest = figures.slowest.max(begun.elapsed());
        answer
    }

    fn note(&self, reason: String) {
        let reasons = &mut self.service.state().figures.reasons;
        if reasons.len() < REASONS_KEPT_MAX {
            reasons.push(reason);
        }
    }

    /// The node for a request; another than `not`, if there is one.
    fn choose(&self, not: Option<&str>) -> Option<String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.habit == Habit::Faithful && not.is_none() && kept.is_some() {
            return kept.clone();
        }
        let nodes = self.service.state().nodes.clone();
        let others: Vec<&String> = nodes.iter().filter(|n| Some(n.as_str()) != not).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let chosen = match others.len() {
            0 => nodes.first().cloned(),
            count => Some(others[turn % count].clone()),
        };
        kept.clone_from(&chosen);
        chosen
    }
}

async fn send_to<F>(node: Option<String>, send: &impl Fn(String) -> F) -> anyhow::Result<Answer>
where
    F: Future<Output = anyhow::Result<Answer>>,
{
    send(node.context("no node is ready")?).await
}

/// Why a request is to be sent to another node; none when it is answered, or was not answered in time.
fn refusal(answer: &anyhow::Result<Answer>) -> Option<String> {
    match answer {
        Ok(answer) if answer.status == 503 => Some(format!("503 {}", answer.text())),
        Err(error) if !error.is::<Elapsed>() => Some(format!("{error:#}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use bytes::Bytes;

    /// What nodes answer, by the first letter of their names.
    async fn node(url: String) -> anyhow::Result<Answer> {
        let status = match url.as_bytes().first() {
            Some(b'g') => 200,
            Some(b'u') => 503,
            Some(b'w') => 500,
            _ => bail!("connection refused"),
        };
        let body = Bytes::from(url);
        Ok(Answer { status, body })
    }

    async fn ask(client: &ServiceClient) -> String {
        match client.ask(node).await {
            Ok(answer) => answer.text(),
            Err(error) => format!("{error:#}"),
        }
    }

    fn service(nodes: &[&str]) -> Service {
        let service = Service::default();
        service.set_nodes(nodes.iter().map(|&node| node.to_owned()).collect());
        service
    }

    fn counts(service: &Service) -> (u64, u64, u64, u64) {
        let f = service.figures();
        (f.requests, f.first_failures, f.retried, f.failed)
    }

    #[tokio::test]
    async fn what_one_node_does_not_take_another_gets_once() {
        let two = service(&["unready", "good"]);
        let client = ServiceClient::new(&two, Habit::Roaming, 0);
        assert_eq!(ask(&client).await, "good");
        assert_eq!(counts(&two), (1, 1, 1, 0));
        let none = service(&["unready", "dead"]);
        let client = ServiceClient::new(&none, Habit::Roaming, 0);
        assert_eq!(ask(&client).await, "connection refused");
        assert_eq!(counts(&none), (1, 1, 0, 1));
        let nobody = service(&[]);
        let client = ServiceClient::new(&nobody, Habit::Roaming, 0);
        assert_eq!(ask(&client).await, "no node is ready");
        assert_eq!(counts(&nobody), (1, 1, 0, 1));
    }

    #[tokio::test]
    async fn other_errors_have_failed_at_once() {
        let wrong = service(&["wrong", "good"]);
        let client = ServiceClient::new(&wrong, Habit::Roaming, 0);
        assert_eq!(ask(&client).await, "wrong");
        assert_eq!(counts(&wrong), (1, 0, 0, 1));
    }

    #[tokio::test]
    async fn a_faithful_client_stays_until_it_is_refused() {
        let nodes = service(&["good-1", "good-2"]);
        let faithful = ServiceClient::new(&nodes, Habit::Faithful, 0);
        let roaming = ServiceClient::new(&nodes, Habit::Roaming, 0);
        for expected in ["good-1", "good-2", "good-1"] {
            assert_eq!(ask(&faithful).await, "good-1");
            assert_eq!(ask(&roaming).await, expected);
        }
        nodes.set_nodes(vec!["dead".to_owned()]);
        assert_eq!(ask(&faithful).await, "good-1");
    }
}
