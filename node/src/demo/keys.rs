//! Single key presses from the terminal, without waiting for Enter; lines when it is not a terminal.

use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::Read;
use tokio::sync::mpsc;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Kill,
    Restart,
    Add,
    Quit,
    Other,
}

/// The source of keys; restores the terminal when dropped.
pub(super) struct Keys {
    receiver: Option<mpsc::Receiver<Key>>,
    original: Option<Termios>,
}

impl Keys {
    /// Starts to read keys, unless `wanted` is false.
    pub(super) fn open(wanted: bool) -> Self {
        if !wanted {
            return Self {
                receiver: None,
                original: None,
            };
        }
        let original = unbuffer_terminal();
        let (sender, receiver) = mpsc::channel(16);
        // A blocking read cannot be cancelled, so the thread is left to end with the process.
        std::thread::spawn(move || {
            for byte in std::io::stdin().lock().bytes() {
                let key = match byte {
                    Ok(b'k') => Key::Kill,
                    Ok(b'r') => Key::Restart,
                    Ok(b'a') => Key::Add,
                    Ok(b'q') => Key::Quit,
                    Ok(b'\n' | b'\r' | b' ') => continue,
                    Ok(_) => Key::Other,
                    Err(_) => return,
                };
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        });
        Self {
            receiver: Some(receiver),
            original,
        }
    }

    /// Whether keys are read.
    pub(super) fn is_open(&self) -> bool {
        self.receiver.is_some()
    }

    /// Resolves when the key to quit is pressed; other keys are lost.
    pub(super) async fn quit(&mut self) {
        while self.next().await != Key::Quit {}
    }

    /// The next key; never resolves when no keys are read or the input has ended.
    pub(super) async fn next(&mut self) -> Key {
        if let Some(receiver) = &mut self.receiver
            && let Some(key) = receiver.recv().await
        {
            return key;
        }
        self.receiver = None;
        std::future::pending().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(original) = &self.original
            && let Err(error) = tcsetattr(std::io::stdin(), OptionalActions::Now, original)
        {
            tracing::debug!(%error, "the terminal could not be restored");
        }
    }
}

/// Turns off line buffering and echo; signals from the keyboard keep working.
fn unbuffer_terminal() -> Option<Termios> {
    let stdin = std::io::stdin();
    if !isatty(&stdin) {
        return None;
    }
    let original = tcgetattr(&stdin).ok()?;
    let mut changed = original.clone();
    changed.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &changed).ok()?;
    Some(original)
}
