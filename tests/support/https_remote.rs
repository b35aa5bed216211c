//! A git server as a company runs one: TLS with its own certificate authority, and a password.
//!
//! nginx and fcgiwrap in front of git's own `git http-backend`, on a free loopback port, with all
//! files in a temporary folder. Both programs end when the value is dropped.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::Duration,
};

use archon_awo::process::blocking_command;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const INSTALL: &str = "this test needs a web server: apt-get install nginx-light fcgiwrap openssl";

/// The running server.
pub struct HttpsRemote {
    folder: tempfile::TempDir,
    programs: Vec<Child>,
    port: u16,
    /// Where a server of Git LFS listens, when there is one behind this.
    lfs: Option<u16>,
}

impl HttpsRemote {
    /// Serves the repositories below `repositories()` to whoever has `token` as the password of
    /// the user `x-access-token`.
    pub fn start(token: &str) -> Self {
        Self::start_with(token, None)
    }

    /// The same with a server of Git LFS behind it, which listens on this port of loopback.
    pub fn start_with(token: &str, lfs: Option<u16>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut remote = Self { folder, programs: Vec::new(), port: 0, lfs };
        fs::create_dir(remote.repositories()).unwrap();
        remote.make_certificate();
        let hash = run("openssl", &["passwd", "-apr1", "-stdin"], remote.folder.path(), token);
        fs::write(remote.file("htpasswd"), format!("x-access-token:{hash}")).unwrap();
        remote.start_backend();
        // Between asking for a free port and using it, somebody else may take it.
        for _ in 0..5 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            remote.port = listener.local_addr().unwrap().port();
            drop(listener);
            if remote.start_nginx() {
                return remote;
            }
        }
        let log = fs::read_to_string(remote.file("error.log")).unwrap_or_default();
        panic!("nginx does not start: {log}");
    }

    /// Host and port, as `AWO_ALLOWED_HOSTS` has it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The folder of the repositories; `{owner}/{name}.git` in it is served as such.
    pub fn repositories(&self) -> PathBuf {
        self.file("repositories")
    }

    /// The certificate authority to trust.
    pub fn ca_file(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// One line for each request so far, with the user it came as in the third place.
    pub fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file("access.log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make_certificate(&self) {
        let at = self.folder.path();
        let openssl = |line: &str| {
            run("openssl", &line.split_whitespace().collect::<Vec<_>>(), at, "");
        };
        openssl(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem",
        );
        openssl(
            "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        );
        fs::write(self.file("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -extfile names -out server.pem",
        );
    }

    fn start_backend(&mut self) {
        let socket = self.file("backend.sock");
        let mut command = blocking_command("fcgiwrap");
        command.env("PATH", PATH).arg("-s").arg(format!("unix:{}", socket.display()));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.programs.push(command.spawn().unwrap_or_else(|_| panic!("{INSTALL}")));
        wait_for("fcgiwrap listens", || socket.exists());
    }

    fn start_nginx(&mut self) -> bool {
        let backend = run("git", &["--exec-path"], self.folder.path(), "");
        let folder = self.folder.path().display();
        let lfs = self.lfs.map(|port| lfs_locations(&folder.to_string(), port)).unwrap_or_default();
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let configuration = format!(
            "{user} daemon off; master_process off; pid {folder}/nginx.pid;\n\
             error_log {folder}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n\
             access_log {folder}/access.log; client_max_body_size 0;\n\
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
             fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;\n\
             scgi_temp_path {folder}/scgi;\n\
             server {{\n\
             listen 127.0.0.1:{port} ssl;\n\
             ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;\n\
             rewrite ^/former/(.*)$ https://127.0.0.1:{port}/acme/$1 permanent;\n\
             rewrite ^/moved/(.*)$ https://localhost:{port}/acme/$1 permanent;\n\
             location ~ ^/tricked/(.*)$ {{ return 301 \
             https://x-access-token%40127.0.0.1%3a{port}%27@localhost:{port}/acme/$1$is_args$args; }}\n\
             location ~ ^/led/.*/info/lfs/ {{ return 307 https://localhost:1$request_uri; }}\n\
             location ~ ^/sent/.*/info/lfs/ {{ return 307 https://elsewhere.example$request_uri; }}\n\
             {lfs}\n\
             location / {{\n\
             auth_basic git; auth_basic_user_file {folder}/htpasswd;\n\
             fastcgi_param SCRIPT_FILENAME {backend}/git-http-backend;\n\
             fastcgi_param GIT_HTTP_EXPORT_ALL 1;\n\
             fastcgi_param GIT_PROJECT_ROOT {folder}/repositories;\n\
             fastcgi_param GIT_CONFIG_NOSYSTEM 1;\n\
             fastcgi_param HOME {folder};\n\
             fastcgi_param PATH_INFO $uri;\n\
             fastcgi_param REMOTE_USER $remote_user;\n\
             fastcgi_param QUERY_STRING $query_string;\n\
             fastcgi_param REQUEST_METHOD $request_method;\n\
             fastcgi_param CONTENT_TYPE $content_type;\n\
             fastcgi_param CONTENT_LENGTH $content_length;\n\
             fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;\n\
             fastcgi_param HTTP_GIT_PROTOCOL $http_git_protocol;\n\
             fastcgi_pass unix:{folder}/backend.sock;\n\
             }} }} }}\n",
            port = self.port,
            backend = backend.trim_end(),
        );
        let file = self.file("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let mut command = blocking_command("nginx");
        command.env("PATH", PATH).arg("-c").arg(&file).arg("-p").arg(self.folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut nginx = command.spawn().unwrap_or_else(|_| panic!("{INSTALL}"));
        for _ in 0..1000 {
            if nginx.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                self.programs.push(nginx);
                return true;
            }
            sleep(Duration::from_millis(10));
        }
        let _ = nginx.kill();
        false
    }
}

/// The contents themselves are asked for with a ticket of the server's own instead of the password.
fn lfs_locations(folder: &str, port: u16) -> String {
    let headers =
        "proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Forwarded-Host $http_host;";
    format!(
        "location ~ /info/lfs/objects/storage/ {{ {headers} proxy_pass http://127.0.0.1:{port}; }}\n\
         location ~ /info/lfs/ {{ {headers} auth_basic git; auth_basic_user_file {folder}/htpasswd; \
         proxy_set_header Authorization \"\"; proxy_pass http://127.0.0.1:{port}; }}"
    )
}

impl Drop for HttpsRemote {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

fn run(program: &str, arguments: &[&str], folder: &Path, input: &str) -> String {
    let mut command = blocking_command(program);
    command.env("PATH", PATH).args(arguments).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|_| panic!("{INSTALL}"));
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {words}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
