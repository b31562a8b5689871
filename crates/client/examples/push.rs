//! Pushes a directory with the library alone.
//!
//! ```text
//! cargo run -p patchwire-client --example push -- LINK_FILE DIRECTORY
//! ```

use std::{env, error::Error, fs, process::ExitCode};

use patchwire_client::{Client, ConnectOptions, PushRequest};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let (Some(link_file), Some(directory)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: push LINK_FILE DIRECTORY");
        return Ok(ExitCode::from(2));
    };
    let link = fs::read_to_string(link_file)?.trim().parse()?;
    let client = Client::new(link, ConnectOptions::default());

    // What is remembered between pushes makes them faster; it may be lost at any time.
    let state = env::temp_dir().join("patchwire-example");
    let request = PushRequest::new(directory, state);
    let report = client
        .push(&request, &|progress| eprintln!("{progress:?}"))
        .await?;

    let [agent] = &report.agents[..] else {
        eprintln!("{:?}: {:?}", report.status, report.error);
        return Ok(ExitCode::from(report.exit_code()));
    };
    eprintln!(
        "{:?} at {}: {} bytes sent in {:?}, app {:?}",
        report.status, agent.name, report.bytes.sent, report.timings_ms.total, agent.app
    );
    for line in &agent.log_tail {
        eprintln!("  {line}");
    }
    Ok(ExitCode::from(report.exit_code()))
}
