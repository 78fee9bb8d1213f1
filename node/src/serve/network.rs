//! How a node and the others reach each other: its listeners, gossip, and the connections between peers. Knows nothing of what
//! they say to each other.

use crate::{
    config::{Listen, Settings},
    front::{Front, Listeners, until_true},
    gossip_driver::Gossip,
    peer_handler::Handlers,
    seeds,
    transport::{
        client::Connections, directory::Directory, identity::LocalIdentity, key::PeerKey, server,
    },
};
use anyhow::Context;
use std::{io::ErrorKind, net::SocketAddr, sync::Arc};
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
};
use trefoil_gossip::{Load, NodeInfo, NodePhase, seeds::Seed};

pub(super) struct Network {
    pub(super) front: Front,
    /// This node as it describes itself at its start.
    pub(super) info: NodeInfo,
    pub(super) seeds: Vec<Seed>,
    pub(super) gossip: Gossip,
    pub(super) peers: Arc<Directory>,
    pub(super) connections: Arc<Connections>,
    pub(super) handlers: Arc<Handlers>,
    pub(super) peer_server: JoinHandle<anyhow::Result<()>>,
    /// True when the node stops.
    pub(super) stop: watch::Sender<bool>,
}

impl Network {
    /// Binds all addresses. Clients hear that the node starts, and peers that it has nothing to say yet.
    ///
    /// # Errors
    /// When an address cannot be bound, or none is known at which others reach this node.
    pub(super) async fn start(
        settings: &Settings,
        identity: &Arc<LocalIdentity>,
        clients: &Handle,
    ) -> anyhow::Result<Self> {
        let seeds: Vec<Seed> = settings
            .seeds
            .iter()
            .map(|s| s.parse())
            .collect::<Result<_, _>>()?;
        let bound = bind(settings).await?;
        let http_address = bound.front.http.local_addr()?;
        let (stop, stopping) = watch::channel(false);
        let front = Front::start(bound.front, clients, &stopping);
        let info = describe(settings, identity, &bound.peer, http_address, &seeds).await?;
        let peers = Arc::new(Directory::default());
        let key = PeerKey::new(settings.cluster_key, identity.clone());
        let listening = bound.peer.local_addr()?.ip();
        let connections = Connections::new(identity.clone(), peers.clone(), key.clone());
        let handlers = Arc::new(Handlers::default());
        handlers.evaluators.set(clients.clone()).ok();
        let peer_server = tokio::spawn(server::serve(
            bound.peer,
            identity.clone(),
            key,
            handlers.clone(),
            until_true(stopping),
        ));
        let gossip = Gossip::start(
            bound.gossip,
            info.clone(),
            seeds.clone(),
            settings.cluster_key,
            peers.clone(),
        )?;
        Ok(Self {
            front,
            info,
            seeds,
            gossip,
            peers,
            connections: Arc::new(connections.leaving_from(listening)),
            handlers,
            peer_server,
            stop,
        })
    }
}

struct Bound {
    front: Listeners,
    peer: TcpListener,
    gossip: UdpSocket,
}

async fn bind(settings: &Settings) -> anyhow::Result<Bound> {
    let http = TcpListener::bind(settings.http)
        .await
        .with_context(|| taken("--http", settings.http))?;
    let peer = TcpListener::bind(settings.peer)
        .await
        .with_context(|| taken("--peer", settings.peer))?;
    let address = peer.local_addr()?;
    let gossip = UdpSocket::bind(address)
        .await
        .with_context(|| taken("--peer, UDP", address))?;
    let front = Listeners {
        http,
        otlp_http: bind_other("--otlp-http", settings.otlp_http).await?,
        otlp_grpc: bind_other("--otlp-grpc", settings.otlp_grpc).await?,
    };
    Ok(Bound {
        front,
        peer,
        gossip,
    })
}

/// Listens for a protocol that the node can do without.
async fn bind_other(flag: &str, listen: Listen) -> anyhow::Result<Option<TcpListener>> {
    match listen {
        Listen::Off => Ok(None),
        Listen::At(address) => {
            let bound = TcpListener::bind(address).await;
            bound.map(Some).with_context(|| taken(flag, address))
        }
        Listen::IfFree(address) => match TcpListener::bind(address).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tracing::warn!(%error, "does without {flag}: cannot listen at {address}");
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| taken(flag, address)),
        },
    }
}

fn taken(flag: &str, address: SocketAddr) -> String {
    format!("listen at {address} ({flag}); if another program has it, choose another address")
}

async fn describe(
    settings: &Settings,
    identity: &LocalIdentity,
    peer: &TcpListener,
    mut http: SocketAddr,
    seeds: &[Seed],
) -> anyhow::Result<NodeInfo> {
    let advertise = settings.advertise.as_deref();
    let peer = seeds::reachable_address(peer.local_addr()?, advertise, seeds).await?;
    if http.ip().is_unspecified() {
        http.set_ip(peer.ip());
    }
    Ok(NodeInfo {
        node: identity.node,
        name: settings.node_name.clone(),
        zone: settings.zone.clone(),
        http,
        peer,
        incarnation: identity.incarnation,
        cluster: identity.cluster(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        load: Load::default(),
        phase: NodePhase::Bootstrapping,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_taken_address_is_done_without() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let without = bind_other("--otlp-http", Listen::IfFree(address)).await;
        assert!(without.unwrap().is_none());
        bind_other("--otlp-http", Listen::At(address))
            .await
            .unwrap_err();
        // An address for documentation, which no machine has.
        let foreign = SocketAddr::from(([192, 0, 2, 1], 4318));
        let wrong = bind_other("--otlp-http", Listen::IfFree(foreign)).await;
        let error = format!("{:#}", wrong.unwrap_err());
        assert!(error.contains("192.0.2.1:4318"), "{error}");
    }
}
