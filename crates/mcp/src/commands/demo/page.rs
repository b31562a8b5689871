//! What the demo's app serves.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use anyhow::{Context, Error, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a page may take, and how long it may be.
const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_LEN: u64 = 64 << 10;

/// Finds a port that is free now.
pub(super) fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Gets what stands at `/`.
pub(super) async fn get(port: u16) -> Result<String, Error> {
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream
            .write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.take(MAX_LEN).read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(TIMEOUT, exchange)
        .await
        .context("the app doesn't answer")?
        .context("the app can't be asked for its page")?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    ensure!(
        status.split(' ').nth(1) == Some("200"),
        "the app answers “{}”",
        status.escape_debug()
    );
    Ok(body.trim_end().to_owned())
}
