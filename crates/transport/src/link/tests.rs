use super::*;

fn relay() -> RelayLink {
    RelayLink::new(
        "relay.example:4433".parse().unwrap(),
        Pin::new([1; 32]),
        RelayKey::new([2; 32]),
    )
}

fn deployment() -> DeploymentLink {
    DeploymentLink {
        relay: relay(),
        app: "shop".parse().unwrap(),
        deployment: "dev-ana".parse().unwrap(),
        keys: Keys::Full(DeploymentSecret::new([3; 32])),
    }
}

fn parse_deployment(text: &str) -> LinkError {
    text.parse::<DeploymentLink>().unwrap_err()
}

/// A link whose checksum fits, whatever it says.
fn checked(body: &str) -> String {
    format!("{body}.{}", BASE64URL_NOPAD.encode(&checksum(body)))
}

#[test]
fn links_are_written_as_ever() {
    let pin = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    let key = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";
    let secret = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM";
    assert_eq!(
        *relay().expose(),
        format!("patchwire://relay.example:4433#v1.{pin}.{key}.MD_VEYfs")
    );
    assert_eq!(
        *deployment().expose(),
        format!("patchwire://relay.example:4433/shop/dev-ana#v1.{pin}.{key}.{secret}.UpuudRw6")
    );
    let narrowed = deployment().narrow();
    assert!(narrowed.expose().starts_with(&format!(
        "patchwire://relay.example:4433/shop/dev-ana#v1a.{pin}.{key}."
    )));
    assert!(!narrowed.expose().contains(secret));
}

#[test]
fn links_are_read_as_written() {
    let full = deployment();
    for link in [full.clone(), full.narrow(), full.narrow().narrow()] {
        let again: DeploymentLink = link.expose().parse().unwrap();
        assert_eq!(*again.expose(), *link.expose());
        assert_eq!(again.id(), full.id());
        assert_eq!(again.is_agent_only(), link.is_agent_only());
    }
    let again: RelayLink = relay().expose().parse().unwrap();
    assert_eq!(*again.expose(), *relay().expose());
    let again: RelayLink = full.relay().expose().parse().unwrap();
    assert_eq!(*again.expose(), *relay().expose());
}

#[test]
fn the_default_port_and_the_case_of_a_host_may_be_typed_otherwise() {
    for other in ["relay.example", "Relay.EXAMPLE:4433"] {
        let typed = relay().expose().replace("relay.example:4433", other);
        assert_eq!(
            *typed.parse::<RelayLink>().unwrap().expose(),
            *relay().expose()
        );
    }
}

#[test]
fn every_mistyped_character_is_noticed() {
    for link in [deployment(), deployment().narrow()] {
        let link = link.expose();
        for at in SCHEME.len()..link.len() {
            let mut bytes = link.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            let typed = String::from_utf8(bytes).unwrap();
            assert!(typed.parse::<DeploymentLink>().is_err(), "{typed}");
        }
        for len in 0..link.len() {
            assert!(link[..len].parse::<DeploymentLink>().is_err(), "{len}");
        }
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let link = deployment().expose();
    assert_eq!(parse_deployment("https://x"), LinkError::NotALink);
    assert_eq!(parse_deployment(""), LinkError::NotALink);
    assert_eq!(
        parse_deployment("patchwire://relay.example/shop/dev"),
        LinkError::Cut
    );
    assert!(matches!(
        parse_deployment(&link.replace("4433", "x")),
        LinkError::Address(AddressError::Port { .. })
    ));
    assert_eq!(
        parse_deployment(&link.replace("shop", "shoq")),
        LinkError::Checksum
    );
    assert_eq!(
        parse_deployment(&link[..link.len() - 1]),
        LinkError::Checksum
    );
    assert_eq!(
        parse_deployment(&link.replace("#v1.", "#v9.")),
        LinkError::Version
    );
    assert_eq!(
        parse_deployment(&relay().expose()),
        LinkError::NeedsDeployment
    );
    assert_eq!(
        link.parse::<RelayLink>().unwrap_err(),
        LinkError::NeedsRelay
    );
    assert_eq!(
        parse_deployment(&checked("patchwire://h:1/a/b#v1.AQEB")),
        LinkError::Parts
    );
    let named = link.replace("/shop/", "/Shop/");
    let (body, _) = named.rsplit_once('.').unwrap();
    assert!(matches!(
        parse_deployment(&checked(body)),
        LinkError::Name(_)
    ));
    assert_eq!(
        deployment()
            .narrow()
            .credentials(Role::Developer)
            .unwrap_err(),
        LinkError::AgentOnly
    );
}

#[test]
fn both_kinds_of_link_give_an_agent_the_same_credentials() {
    let full = deployment().credentials(Role::Agent).unwrap();
    let narrowed = deployment().narrow().credentials(Role::Agent).unwrap();
    assert_eq!(full.agent_key(), narrowed.agent_key());
    assert_eq!(full.developer_key(), narrowed.developer_key());
    assert_eq!(full.sign_hello(&[5; 32]), narrowed.sign_hello(&[5; 32]));
}

#[test]
fn minted_links_differ() {
    let mint =
        || DeploymentLink::mint(&relay(), "shop".parse().unwrap(), "dev".parse().unwrap()).unwrap();
    assert_ne!(mint().id(), mint().id());
}

#[test]
fn nothing_secret_is_printed() {
    let full = deployment();
    for text in [
        format!("{:?} {} {:?}", full, full, full.narrow()),
        format!("{:?} {}", relay(), relay()),
        format!("{:?}", full.credentials(Role::Agent).unwrap()),
        format!("{:?}", full.credentials(Role::Developer).unwrap()),
    ] {
        assert!(!text.contains("AwMD") && !text.contains("AgIC"), "{text}");
        assert!(!text.contains("3, 3") && !text.contains("0303"), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_link_or_an_error(text in "(patchwire://)?[a-z0-9:\\[\\]./#-]{0,80}") {
        if let Ok(link) = text.parse::<DeploymentLink>() {
            link.expose().parse::<DeploymentLink>().unwrap();
        }
        if let Ok(link) = text.parse::<RelayLink>() {
            link.expose().parse::<RelayLink>().unwrap();
        }
    }
}
