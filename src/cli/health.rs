//! `archon-awo health`: asks a worker how it is; the health check of the container image.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url::Url;

use super::output::{Output, status};
use crate::{
    config::{Config, Host},
    exit::CommandError,
};

/// Longest time for the whole exchange.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address of the worker; the one in the settings when left out.
    #[arg(long)]
    url: Option<String>,
}

pub(super) async fn run(args: &Args, host: &Host, output: &Output) -> anyhow::Result<()> {
    let url = match &args.url {
        Some(text) => address(text)?,
        None => own_address(&Config::load(host)?)?,
    };
    let exchange = tokio::time::timeout(PATIENCE, get(&url)).await;
    let (code, body) = exchange
        .map_err(|_| anyhow::anyhow!("no answer within 5s"))
        .and_then(|answer| answer)
        .with_context(|| format!("cannot ask the worker at {url}"))?;
    let answer: Value = serde_json::from_slice(&body)
        .with_context(|| format!("{url} answered {code} with something else than JSON"))?;
    if output.is_json() {
        output.document(&answer)?;
    } else {
        let word = answer["status"].as_str().unwrap_or("unknown");
        output.line(if word == "healthy" { status("ok") } else { status(word) })?;
    }
    if code == 200 {
        return Ok(());
    }
    let problems = answer["problems"].as_array().into_iter().flatten();
    let problems: Vec<&str> = problems.filter_map(Value::as_str).collect();
    bail!("the worker at {url} cannot work: {}", problems.join("; "));
}

fn address(text: &str) -> Result<Url, CommandError> {
    let expected = "expected http://host:port";
    let refused = || CommandError::Usage(format!("url is {text:?}: {expected}"));
    let mut url = Url::parse(text).map_err(|_| refused())?;
    if url.scheme() != "http" || !url.has_host() {
        return Err(refused());
    }
    if matches!(url.path(), "" | "/") {
        url.set_path("/health");
    }
    Ok(url)
}

/// The worker of this host; one that listens everywhere is asked on the loopback.
fn own_address(config: &Config) -> Result<Url, CommandError> {
    let host = match config.http.bind {
        IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) if ip.is_unspecified() => "[::1]".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    address(&format!("http://{host}:{}", config.http.port))
}

/// One GET: status and body.
async fn get(url: &Url) -> anyhow::Result<(u16, Vec<u8>)> {
    let host = url.host_str().context("the address has no host")?;
    let port = url.port_or_known_default().context("the address has no port")?;
    let mut stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let path = url.path();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.context("the answer is not HTTP")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let code = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    let code = code.and_then(|code| code.parse().ok()).context("the answer is not HTTP")?;
    Ok((code, answer.split_off(end + 4)))
}
