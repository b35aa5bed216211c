//! A server that speaks S3 on loopback: moto, a stand-in for Amazon's that keeps what it is given in memory.
//! Installed once into the user's cache when it is missing.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use archon_awo::config::ArchiveConfig;

use crate::python_place::python_with;

const PACKAGE: &str = "moto[s3,server]==5.1.16";

/// Serves on a free port, makes the bucket, and says its address.
const SERVE: &str = "import sys, threading, time
from werkzeug.serving import make_server
from moto.server import DomainDispatcherApplication, create_backend_app
import boto3
server = make_server('127.0.0.1', 0, DomainDispatcherApplication(create_backend_app), threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f'http://127.0.0.1:{server.server_port}'
boto3.client('s3', endpoint_url=url, region_name='us-east-1', aws_access_key_id=sys.argv[2],
             aws_secret_access_key=sys.argv[3]).create_bucket(Bucket=sys.argv[1])
print(url, flush=True)
sys.stdin.read()
";

/// A running server; it ends with this value.
pub struct S3Server {
    process: Child,
    url: String,
    bucket: &'static str,
}

impl S3Server {
    const KEY_ID: &'static str = "AWOTESTKEYID";
    /// No real key has this form.
    pub const SECRET: &'static str = "secret-key-of-the-archive-tests";

    pub async fn start(bucket: &'static str) -> Self {
        tokio::task::spawn_blocking(move || Self::start_now(bucket)).await.unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "tests start their own server")]
    fn start_now(bucket: &'static str) -> Self {
        let mut process = Command::new(python_with("moto-5.1.16", &[PACKAGE]))
            .args(["-c", SERVE, bucket, Self::KEY_ID, Self::SECRET])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("http://"), "the S3 server did not start: {line:?}");
        Self { process, url: line.trim().to_owned(), bucket }
    }

    /// Settings for a prefix in its bucket.
    pub fn config(&self, prefix: &str) -> ArchiveConfig {
        ArchiveConfig {
            url: format!("s3://{}/{prefix}", self.bucket).parse().unwrap(),
            options: vec![
                ("aws_allow_http", "true".into()),
                ("aws_endpoint", self.url.clone().into()),
                ("aws_region", "us-east-1".into()),
                ("aws_access_key_id", Self::KEY_ID.into()),
                ("aws_secret_access_key", Self::SECRET.into()),
            ],
            max_bytes: 64 << 20,
        }
    }

    pub fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Both fail when the test has stopped it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
