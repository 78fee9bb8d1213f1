//! The cluster's name server, as far as a headless service needs it: A records over UDP.
//!
//! Known names are answered with their addresses, and with none when another type is asked; all other names with
//! NXDOMAIN. Messages have one question (RFC 1035, section 4); what is anything else gets no answer, as an answer
//! could only be wrong.
//!
//! ```text
//! header (12 bytes, big-endian): id 2, flags 2, questions 2, answers 2, authorities 2, additional 2
//! question: labels (length 1, text), 0, type 2, class 2
//! answer:   0xC00C (the question's name), type 2, class 2, TTL 4, length 2, address 4
//! ```

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{net::UdpSocket, task::JoinHandle};

/// What a message over UDP may have (RFC 1035, section 4.2.1).
const MESSAGE_BYTES_MAX: usize = 512;
const HEADER_BYTES: usize = 12;
/// Answers that fit into a message beside the longest name (255 bytes).
const ANSWERS_MAX: usize = 14;
/// How long an answer may be kept. CoreDNS says 30 s for services of Kubernetes by default, 5 s here.
const TTL_SECONDS: u32 = 5;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
/// Response, authoritative.
const FLAGS: u16 = 0x8400;
const NAME_ERROR: u16 = 3;

/// The names and their addresses. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<Known>);

#[derive(Default)]
struct Known {
    names: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    answered: AtomicU64,
}

impl Names {
    /// Sets all names, in lower case and without a dot at the end.
    pub(crate) fn set(&self, names: BTreeMap<String, Vec<IpAddr>>) {
        *self.0.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// How many questions were answered with an address.
    pub(crate) fn answered(&self) -> u64 {
        self.0.answered.load(Ordering::Relaxed)
    }

    fn find(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        let names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = names.get(&name.to_ascii_lowercase())?.iter();
        let of_version_4 = addresses.filter_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        Some(of_version_4.collect())
    }
}

/// Answers at port 53 of the network that the calling thread is in, until the task is aborted.
///
/// # Errors
/// When the port cannot be bound.
pub(crate) async fn serve(names: Names) -> anyhow::Result<JoinHandle<()>> {
    let socket = UdpSocket::bind("0.0.0.0:53").await?;
    Ok(tokio::spawn(async move {
        let mut message = [0; MESSAGE_BYTES_MAX];
        // An error is that of an answer sent before: its receiver has gone.
        loop {
            let Ok((length, from)) = socket.recv_from(&mut message).await else {
                continue;
            };
            if let Some(answer) = answer(&message[..length], &names) {
                socket.send_to(&answer, from).await.ok();
            }
        }
    }))
}

/// The answer to a message; none to what is no question of one name.
fn answer(message: &[u8], names: &Names) -> Option<Vec<u8>> {
    let question = Question::read(message)?;
    let known = names.find(&question.name);
    let (code, addresses) = match known {
        None => (NAME_ERROR, Vec::new()),
        Some(addresses) if question.kind == TYPE_A => (0, addresses),
        Some(_) => (0, Vec::new()),
    };
    let count = addresses.len().min(ANSWERS_MAX);
    if count > 0 {
        names.0.answered.fetch_add(1, Ordering::Relaxed);
    }
    let mut out = Vec::with_capacity(MESSAGE_BYTES_MAX);
    out.extend(&message[..2]);
    // The bit "recursion desired" goes back as it came.
    let desired = u16::from(message[2] & 1) << 8;
    for number in [FLAGS | desired | code, 1, count as u16, 0, 0] {
        out.extend(number.to_be_bytes());
    }
    out.extend(&message[HEADER_BYTES..question.end]);
    for address in &addresses[..count] {
        out.extend([0xc0, HEADER_BYTES as u8]);
        out.extend(TYPE_A.to_be_bytes());
        out.extend(CLASS_IN.to_be_bytes());
        out.extend(TTL_SECONDS.to_be_bytes());
        out.extend(4u16.to_be_bytes());
        out.extend(address.octets());
    }
    Some(out)
}

/// What is asked.
struct Question {
    name: String,
    kind: u16,
    /// Where the question ends in the message.
    end: usize,
}

impl Question {
    fn read(message: &[u8]) -> Option<Self> {
        let header = message.get(..HEADER_BYTES)?;
        let is_query = header[2] & 0xf8 == 0;
        if !is_query || header[4..6] != [0, 1] {
            return None;
        }
        let mut labels = Vec::new();
        let mut at = HEADER_BYTES;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            match length {
                0 => break,
                // Longer ones are pointers, which no question needs.
                1..=63 => {
                    let label = std::str::from_utf8(message.get(at..at + length)?).ok()?;
                    labels.push(label);
                    at += length;
                }
                _ => return None,
            }
        }
        // The name has at most 255 bytes, lengths included.
        if at - HEADER_BYTES > 255 {
            return None;
        }
        let rest = message.get(at..at + 4)?;
        let number = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        (number(2) == CLASS_IN).then(|| Self {
            name: labels.join("."),
            kind: number(0),
            end: at + 4,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question as resolvers send it: recursion desired, an additional record behind it.
    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            out.push(label.len() as u8);
            out.extend(label.as_bytes());
        }
        out.push(0);
        out.extend(kind.to_be_bytes());
        out.extend(CLASS_IN.to_be_bytes());
        out.extend([0, 0, 41, 4, 176, 0, 0, 0, 0, 0, 0]);
        out
    }

    fn names() -> Names {
        let names = Names::default();
        let addresses = [1, 2].map(|last| IpAddr::from([10, 0, 0, last])).to_vec();
        names.set(BTreeMap::from([("peers.here".to_owned(), addresses)]));
        names
    }

    #[test]
    fn a_known_name_has_its_addresses_and_others_are_denied() {
        let names = names();
        let known = answer(&question("Peers.here", TYPE_A), &names).unwrap();
        assert_eq!(known[..4], [0xab, 0xcd, 0x85, 0]);
        assert_eq!(known[4..12], [0, 1, 0, 2, 0, 0, 0, 0]);
        assert!(known.ends_with(&[0, 0, 0, 5, 0, 4, 10, 0, 0, 2]));
        // Another type of the same name, as resolvers ask for IPv6.
        let other = answer(&question("peers.here", 28), &names).unwrap();
        assert_eq!((other[3] & 15, other[7]), (0, 0));
        let unknown = answer(&question("peers.there", TYPE_A), &names).unwrap();
        assert_eq!((unknown[3] & 15, unknown[7]), (3, 0));
        assert_eq!(names.answered(), 1);
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        let whole = question("peers.here", TYPE_A);
        let end = whole.len() - 11;
        for length in 0..end {
            assert!(answer(&whole[..length], &names()).is_none(), "{length}");
        }
        for (at, wrong) in [(2, 0x81), (5, 2), (HEADER_BYTES, 0xc0), (end - 1, 3)] {
            let mut message = whole.clone();
            message[at] = wrong;
            assert!(answer(&message, &names()).is_none(), "byte {at}");
        }
    }

    #[test]
    fn answers_fit_into_a_message() {
        let many = Names::default();
        let name = [
            &"a".repeat(63),
            &"b".repeat(63),
            &"c".repeat(63),
            &"d".repeat(61),
        ]
        .map(String::as_str)
        .join(".");
        many.set(BTreeMap::from([(
            name.clone(),
            vec![IpAddr::from([10, 0, 0, 1]); 100],
        )]));
        let answer = answer(&question(&name, TYPE_A), &many).unwrap();
        assert!((400..=MESSAGE_BYTES_MAX).contains(&answer.len()));
    }
}
