//! How SWIM is set, and the one message that it lacks.

use crate::{GossipError, Identity, wire::WireCodec};
use foca::{Codec, Config, Header, Member, Message, PeriodicParams};
use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

/// How often one other member is probed. A dead one is suspected within two of these.
const PROBE_PERIOD: Duration = Duration::from_millis(500);
/// How long a direct answer may take before other members are asked to probe.
const PROBE_ANSWER: Duration = Duration::from_millis(150);
/// How long a suspect may defend itself. With the probe, death is seen after 1.5 to 2.5 s.
const SUSPECT_PERIOD: Duration = Duration::from_millis(1500);
/// How often news is passed on, to three members each time.
const GOSSIP_INTERVAL: Duration = Duration::from_millis(200);
/// How often one member is asked for the whole list.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a dead member is remembered and tried again.
const FORGET_DOWN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How often each piece of news is sent. Enough for hundreds of nodes.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(8).expect("not zero");

/// How foca is run.
pub(crate) fn config(message_bytes_max: usize) -> Config {
    let three = NonZeroUsize::MIN.saturating_add(2);
    let every = |frequency, members: usize| {
        Some(PeriodicParams {
            frequency,
            num_members: NonZeroUsize::MIN.saturating_add(members - 1),
        })
    };
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_ANSWER,
        num_indirect_probes: three,
        max_transmissions: TRANSMISSIONS,
        suspect_to_down_after: SUSPECT_PERIOD,
        remove_down_after: Some(FORGET_DOWN_AFTER),
        max_packet_size: NonZeroUsize::MIN.saturating_add(message_bytes_max - 1),
        notify_down_members: true,
        periodic_announce: every(ANNOUNCE_INTERVAL, 1),
        // Our own `retry_down` does it better.
        periodic_announce_to_down_members: None,
        periodic_gossip: every(GOSSIP_INTERVAL, 3),
    }
}

/// The message that tells a suspect that it is suspected.
///
/// # Errors
/// Never: the buffer grows.
pub(crate) fn suspicion_notice(
    own: &Identity,
    suspect: &Member<Identity>,
) -> Result<Vec<u8>, GossipError> {
    let header = Header {
        src: *own,
        // Our own incarnation is foca's secret; the lowest one changes nothing at the receiver.
        src_incarnation: 0,
        dst: *suspect.id(),
        message: Message::Gossip,
    };
    let mut out = Vec::with_capacity(128);
    WireCodec.encode_header(&header, &mut out)?;
    out.extend_from_slice(&1u16.to_be_bytes());
    WireCodec.encode_member(suspect, &mut out)?;
    Ok(out)
}
