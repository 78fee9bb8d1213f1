//! A bug that ends the journal's thread.

use super::*;

/// Whoever drives the journal hears that nothing becomes durable any more.
#[test]
fn a_panic_of_the_thread_ends_the_journal() {
    let disk = SimulatedDisk::new(1);
    let ended = Arc::new((Mutex::new(false), Condvar::new()));
    let tell = ended.clone();
    let on_durable: OnDurable = Arc::new(move |event| match event {
        DurableEvent::Ended { .. } => {
            *tell.0.lock() = true;
            tell.1.notify_all();
        }
        _ => panic!("a bug"),
    });
    let options = JournalOptions {
        mode: CommitMode::Thread,
        ..options()
    };
    let (journal, _) = Journal::open(Arc::new(disk), dir(), options, on_durable).unwrap();
    journal.append(&[b"record"]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut told = ended.0.lock();
    while !*told {
        let waited = ended.1.wait_until(&mut told, deadline);
        assert!(!waited.timed_out(), "nobody heard of it");
    }
    drop(told);
    let refused = journal.append(&[b"record"]);
    assert!(matches!(refused, Err(JournalError::Ended)));
}
