//! Who is attached, and where a stream goes. Pure: it holds the connections and does nothing to them.

use std::collections::{BTreeMap, HashMap};

use patchwire_protocol::{
    message::relay::{Refusal, Role},
    name::Name,
};
use patchwire_transport::DeploymentId;

/// A deployment, by its names and then its keys: the same names under other keys are its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RouteKey {
    pub(crate) app: Name,
    pub(crate) deployment: Name,
    pub(crate) id: DeploymentId,
}

/// One attached connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PeerId(u64);

/// The table of attached peers, of which `P` is what the shell needs to reach one.
#[derive(Debug)]
pub(crate) struct Router<P> {
    capacity: usize,
    next: u64,
    peers: HashMap<PeerId, Peer<P>>,
    /// The newest agent of each deployment.
    agents: BTreeMap<RouteKey, PeerId>,
    draining: Option<Refusal>,
}

#[derive(Debug)]
struct Peer<P> {
    handle: P,
    role: Role,
    key: RouteKey,
}

/// That a peer attached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Attached<P> {
    pub(crate) id: PeerId,
    /// The agent whose place it took, which has to be told.
    pub(crate) replaced: Option<P>,
}

impl<P: Clone> Router<P> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            next: 0,
            peers: HashMap::new(),
            agents: BTreeMap::new(),
            draining: None,
        }
    }

    /// Takes a peer in. A newer agent takes an older one's place.
    pub(crate) fn attach(
        &mut self,
        role: Role,
        key: RouteKey,
        handle: P,
    ) -> Result<Attached<P>, Refusal> {
        if let Some(refusal) = &self.draining {
            return Err(refusal.clone());
        }
        if self.peers.len() >= self.capacity {
            return Err(Refusal::Limit);
        }
        let id = PeerId(self.next);
        self.next += 1;
        let older = match role {
            Role::Developer => None,
            Role::Agent => self.agents.insert(key.clone(), id),
        };
        let replaced = older
            .and_then(|older| self.peers.get(&older))
            .map(|older| older.handle.clone());
        self.peers.insert(id, Peer { handle, role, key });
        Ok(Attached { id, replaced })
    }

    /// Lets a peer go. An agent whose place was taken takes nothing with it.
    pub(crate) fn detach(&mut self, id: PeerId) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        if peer.role == Role::Agent && self.agents.get(&peer.key) == Some(&id) {
            self.agents.remove(&peer.key);
        }
    }

    /// Where a stream that this peer opens goes.
    pub(crate) fn route(&self, from: PeerId) -> Result<P, Refusal> {
        if let Some(refusal) = &self.draining {
            return Err(refusal.clone());
        }
        let peer = self.peers.get(&from).ok_or(Refusal::Malformed)?;
        match peer.role {
            Role::Developer => {}
            Role::Agent => return Err(Refusal::Malformed),
        }
        let agent = self.agents.get(&peer.key).and_then(|id| self.peers.get(id));
        match agent {
            Some(agent) => Ok(agent.handle.clone()),
            None if self.is_known_otherwise(&peer.key) => Err(Refusal::DeploymentSecret),
            None => Err(Refusal::NoAgent),
        }
    }

    /// Takes nobody in and routes nothing from now on, for this reason.
    pub(crate) fn drain(&mut self, refusal: Refusal) {
        self.draining = Some(refusal);
    }

    /// Whether an agent is attached under the same names with other keys.
    fn is_known_otherwise(&self, key: &RouteKey) -> bool {
        let same_names =
            |other: &&RouteKey| other.app == key.app && other.deployment == key.deployment;
        let after = self.agents.range(key..).map(|(other, _)| other);
        let before = self.agents.range(..key).map(|(other, _)| other);
        after.take(1).find(same_names).is_some() || before.rev().take(1).find(same_names).is_some()
    }
}

#[cfg(test)]
mod tests {
    use patchwire_protocol::message::relay::PublicKey;

    use super::*;

    const LIMIT: usize = 8;

    fn key(app: &str, secret: u8) -> RouteKey {
        let (app, deployment): (Name, Name) = (app.parse().unwrap(), "dev".parse().unwrap());
        let id = DeploymentId::new(
            &app,
            &deployment,
            PublicKey([secret; 32]),
            PublicKey([secret; 32]),
        );
        RouteKey {
            app,
            deployment,
            id,
        }
    }

    fn attach(
        router: &mut Router<&'static str>,
        role: Role,
        key: &RouteKey,
        handle: &'static str,
    ) -> PeerId {
        router.attach(role, key.clone(), handle).unwrap().id
    }

    #[test]
    fn a_stream_goes_to_the_agent_of_its_deployment() {
        let mut router = Router::new(LIMIT);
        let (shop, blog) = (key("shop", 1), key("blog", 1));
        let ana = attach(&mut router, Role::Developer, &shop, "ana");
        assert_eq!(router.route(ana), Err(Refusal::NoAgent));
        attach(&mut router, Role::Agent, &blog, "blog-1");
        assert_eq!(router.route(ana), Err(Refusal::NoAgent));
        let agent = attach(&mut router, Role::Agent, &shop, "shop-1");
        assert_eq!(router.route(ana), Ok("shop-1"));
        router.detach(agent);
        assert_eq!(router.route(ana), Err(Refusal::NoAgent));
    }

    #[test]
    fn the_newest_agent_wins_and_the_older_is_told() {
        let mut router = Router::new(LIMIT);
        let shop = key("shop", 1);
        let ana = attach(&mut router, Role::Developer, &shop, "ana");
        let older = attach(&mut router, Role::Agent, &shop, "older");
        let newer = router.attach(Role::Agent, shop, "newer").unwrap();
        assert_eq!(newer.replaced, Some("older"));
        assert_eq!(router.route(ana), Ok("newer"));
        // The older one's leaving does not unseat the newer.
        router.detach(older);
        assert_eq!(router.route(ana), Ok("newer"));
        router.detach(newer.id);
        assert_eq!(router.route(ana), Err(Refusal::NoAgent));
    }

    #[test]
    fn the_same_name_under_another_secret_is_another_deployment() {
        // Both orders of the keys, since neighbours are looked for on both sides.
        for (mine, other) in [(1, 2), (2, 1)] {
            let mut router = Router::new(LIMIT);
            let ana = attach(&mut router, Role::Developer, &key("shop", mine), "ana");
            let squatter = router.attach(Role::Agent, key("shop", other), "squatter");
            assert_eq!(squatter.unwrap().replaced, None);
            assert_eq!(router.route(ana), Err(Refusal::DeploymentSecret));
            let own = router.attach(Role::Agent, key("shop", mine), "own");
            assert_eq!(own.unwrap().replaced, None);
            assert_eq!(router.route(ana), Ok("own"));
        }
    }

    #[test]
    fn only_developers_open_streams() {
        let mut router = Router::new(LIMIT);
        let agent = attach(&mut router, Role::Agent, &key("shop", 1), "agent");
        assert_eq!(router.route(agent), Err(Refusal::Malformed));
        router.detach(agent);
        assert_eq!(router.route(agent), Err(Refusal::Malformed));
        router.detach(agent);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut router = Router::new(2);
        let shop = key("shop", 1);
        let first = attach(&mut router, Role::Developer, &shop, "first");
        attach(&mut router, Role::Agent, &shop, "second");
        let refused = router.attach(Role::Agent, shop.clone(), "third");
        assert_eq!(refused, Err(Refusal::Limit));
        assert_eq!(router.route(first), Ok("second"));
        router.detach(first);
        attach(&mut router, Role::Agent, &shop, "third");
    }

    #[test]
    fn a_draining_relay_takes_nobody_and_routes_nothing() {
        let mut router = Router::new(LIMIT);
        let shop = key("shop", 1);
        let ana = attach(&mut router, Role::Developer, &shop, "ana");
        attach(&mut router, Role::Agent, &shop, "agent");
        let draining = Refusal::Draining { retry_after_ms: 1 };
        router.drain(draining.clone());
        assert_eq!(router.route(ana), Err(draining.clone()));
        assert_eq!(router.attach(Role::Agent, shop, "late"), Err(draining));
    }
}
