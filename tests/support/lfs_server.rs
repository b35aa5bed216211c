//! A server of Git LFS on loopback: giftless, which keeps contents in a folder of the test. It knows no
//! passwords; the web server in front of it asks for them.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::python_place::python_with;

const NAME: &str = "giftless-0.6.2-pyjwt-2.9";
const PACKAGES: &[&str] = &[
    "giftless==0.6.2",
    "cachetools==8.0.2",
    "cryptography==50.0.2",
    "figcan==0.0.4",
    "Flask==3.1.3",
    "Flask-Classful==0.16.0",
    "flask-marshmallow==1.5.0",
    "importlib_metadata==10.2.0",
    "marshmallow==4.4.0",
    "marshmallow-enum==1.5.1",
    "PyJWT==2.9.0",
    "python-dateutil==4.0.0",
    "python-dotenv==1.2.4",
    "PyYAML==6.0.4",
    "typing_extensions==4.16.0",
    "webargs==8.7.1",
    "Werkzeug==3.1.9",
];

/// Serves on a free port and says which.
const SERVE: &str = "import logging, sys, threading, warnings
warnings.simplefilter('ignore')
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.serving import make_server
from giftless.app import init_app
app = init_app(additional_config={
    'AUTH_PROVIDERS': ['giftless.auth.allow_anon:read_write'],
    'LEGACY_ENDPOINTS': False,
    'TRANSFER_ADAPTERS': {'basic': {'options': {'storage_options': {'path': sys.argv[1]}}}},
})
logging.disable()
server = make_server('127.0.0.1', 0, ProxyFix(app, x_proto=1, x_host=1), threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
";

/// The running server; it ends with this value.
pub struct LfsServer {
    process: Child,
    folder: tempfile::TempDir,
    pub port: u16,
}

impl LfsServer {
    #[expect(clippy::disallowed_methods, reason = "tests start their own server")]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(python_with(NAME, PACKAGES))
            .args(["-c", SERVE])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse();
        let port = port.unwrap_or_else(|_| panic!("the server of Git LFS did not start: {line:?}"));
        Self { process, folder, port }
    }

    /// The contents it has, wherever it keeps them.
    pub fn contents(&self) -> Vec<Vec<u8>> {
        files(self.folder.path()).iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// Loses everything.
    pub fn forget(&self) {
        for file in files(self.folder.path()) {
            fs::remove_file(file).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

impl Drop for LfsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
