//! Paths, names, options, links and addresses: text from people and peers.

use std::{fmt::Display, str::FromStr};

use patchwire_protocol::{
    app::{HttpUrl, ReadyCheck, Reload, Signal},
    codec, limits,
    manifest::LinkTarget,
    message::{push::PushId, relay::PeerName},
    name::Name,
    path::{RESERVED, RelativePath, escape},
};
use patchwire_transport::{Address, DeploymentLink, LinkError, RelayLink, Role};

use crate::message::recode;

/// A path inside a tree, and a symbolic link's target.
pub fn path(data: &[u8]) {
    assert!(!escape(data).to_string().contains(char::is_control));
    recode::<RelativePath>(data);
    recode::<LinkTarget>(data);

    let parsed = RelativePath::new(data);
    let bytes = codec::encode(&data.to_vec());
    assert_eq!(
        codec::decode::<RelativePath>(&bytes).ok().as_ref(),
        parsed.as_ref().ok(),
        "from the wire the same holds as from the disk"
    );
    let path = match parsed {
        Ok(path) => path,
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control));
            return;
        }
    };
    assert_eq!(path.as_bytes(), data);
    assert_ne!(path.components().next(), Some(RESERVED));
    assert!(path.components().count() <= limits::DEPTH);
    for component in path.components() {
        assert!(!matches!(component, b"" | b"." | b".."));
        assert!(component.len() <= limits::COMPONENT);
        assert!(!component.contains(&0));
    }
    assert!(!path.to_string().contains(char::is_control));
    if let Some(parent) = path.parent() {
        assert!(path.is_inside(&parent));
        assert_eq!(parent.join(path.name()), Ok(path.clone()));
        assert!(parent < path);
    }
    let target = LinkTarget::new(data).expect("what is a path can be pointed to");
    assert!(
        !target.leaves_root(&path),
        "a path leads down from wherever it is"
    );
}

/// Names of apps, deployments, peers and pushes.
pub fn name(data: &[u8]) {
    recode::<Name>(data);
    recode::<PeerName>(data);
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    reparse::<Name>(text);
    reparse::<PushId>(text);
    let nearest = PeerName::nearest(text);
    if let Some(name) = reparse::<PeerName>(text) {
        assert_eq!(nearest, name);
    }
    assert_eq!(nearest.as_str().parse().as_ref(), Ok(&nearest));
}

/// How an app is reloaded and checked.
pub fn app(data: &[u8]) {
    recode::<Reload>(data);
    recode::<ReadyCheck>(data);
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    reparse::<Signal>(text);
    if let Some(reload) = reparse::<Reload>(text) {
        recode::<Reload>(&codec::encode(&reload)).expect("what was parsed can be sent");
    }
    if let Some(check) = reparse::<ReadyCheck>(text) {
        recode::<ReadyCheck>(&codec::encode(&check)).expect("what was parsed can be sent");
    }
    if let Some(url) = reparse::<HttpUrl>(text) {
        let visible = |byte: u8| byte.is_ascii_graphic();
        assert!(url.target().starts_with('/') && url.target().bytes().all(visible));
        assert!(url.authority().bytes().all(visible));
    }
}

/// Links of relays and deployments.
pub fn link(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(link) = text.parse::<RelayLink>() {
        let exposed = link.expose();
        let again: RelayLink = exposed.parse().expect("what was written can be read");
        assert_eq!(*again.expose(), *exposed);
        assert!(matches!(
            text.parse::<DeploymentLink>(),
            Err(LinkError::NeedsDeployment)
        ));
    }
    if let Ok(link) = text.parse::<DeploymentLink>() {
        let exposed = link.expose();
        let again: DeploymentLink = exposed.parse().expect("what was written can be read");
        assert_eq!(*again.expose(), *exposed);
        assert_eq!(again.id(), link.id());
        assert_eq!(
            again.credentials(Role::Developer).is_ok(),
            !link.is_agent_only()
        );
        let narrowed = link.narrow();
        assert!(narrowed.is_agent_only());
        assert_eq!(narrowed.id(), link.id());
    }
}

/// Addresses of relays.
pub fn address(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        reparse::<Address>(text);
    }
}

/// Parses a text. What it means must be the same after writing and parsing it again.
fn reparse<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: std::fmt::Debug> + Display + PartialEq + std::fmt::Debug,
{
    let value: T = text.parse().ok()?;
    match value.to_string().parse::<T>() {
        Ok(again) => assert_eq!(again, value),
        Err(error) => panic!("{value} does not parse again: {error:?}"),
    }
    Some(value)
}
