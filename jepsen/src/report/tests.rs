//! The page: what must be on it, that it needs nothing else, and that it does not grow with the operations.

use super::render;
use crate::{
    checker,
    history::{Action, Fault, History, Numbered, Operation, Outcome, Run},
};

/// A history with so many adds in 100 s, one fault in the middle, and a name that would break a careless page.
fn history(adds: u64) -> History {
    let run = Run {
        seed: 4711,
        nodes: vec!["node-1".to_owned(), "</script><b>".to_owned()],
        workloads: vec!["set".to_owned()],
        faults: vec!["kill-one".to_owned()],
        duration: 100_000_000,
        hosts: "loopback".to_owned(),
    };
    let operations = (0..adds).map(|number| {
        let invoked = number * 100_000_000 / adds;
        let during = (40_000_000..50_000_000).contains(&invoked);
        let item = Operation {
            client: 0,
            node: 1,
            invoked,
            completed: Some(invoked + 100),
            action: Action::Add {
                writer: "w".to_owned(),
                number,
                series: 1,
            },
            outcome: match during {
                true => Outcome::Failed("503".to_owned()),
                false => Outcome::Done,
            },
        };
        let line = number as usize + 2;
        Numbered { line, item }
    });
    let fault = Fault {
        kind: "kill-one".to_owned(),
        nodes: vec![1],
        begun: 40_000_000,
        ended: 50_000_000,
        recovered: Some(52_000_000),
        details: "SIGKILL & co.".to_owned(),
        struck: 1,
    };
    let line = adds as usize + 2;
    History {
        run,
        operations: operations.collect(),
        faults: vec![Numbered { line, item: fault }],
        digests: Vec::new(),
    }
}

fn page(adds: u64) -> String {
    let history = history(adds);
    render(&history, &checker::check(&history))
}

#[test]
fn a_page_tells_what_was_wrong_and_how_to_do_it_again() {
    let page = page(1_000);
    for words in [
        "seed 4711",
        "--seed 4711",
        "--replay schedule.json",
        "kill-one",
        "the replicas were never compared",
        "SIGKILL &amp; co.",
        "&lt;/script&gt;&lt;b&gt;",
        "violations</span>",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("</script><b>"));
}

#[test]
fn a_page_needs_nothing_from_outside() {
    let page = page(1_000);
    for words in ["http://", "https://", "src=", "@import", "url(//"] {
        assert!(!page.contains(words), "{words}");
    }
}

#[test]
fn a_page_does_not_grow_with_the_operations() {
    let (few, many) = (page(10_000).len(), page(300_000).len());
    assert!(many < few + few / 2, "{few} and {many} bytes");
    assert!(many < 2_000_000, "{many} bytes");
}

#[test]
fn failures_are_drawn_even_if_they_are_few() {
    let mut history = history(100_000);
    history.operations[77].item.outcome = Outcome::Unknown("cut".to_owned());
    let page = render(&history, &checker::check(&history));
    assert!(
        page.contains("<path class=\"unknown\" d=\"M0 "),
        "the first bin"
    );
    assert!(page.contains("<path class=\"failed\""));
    assert!(page.contains("<path class=\"erring\""));
}

#[test]
fn an_empty_history_has_a_page() {
    let mut history = history(1);
    history.operations.clear();
    history.faults.clear();
    let page = render(&history, &checker::check(&history));
    assert!(page.contains("kill-one was asked for and did not happen"));
}
