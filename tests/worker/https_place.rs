//! A remote behind HTTPS with a token, a fake of the forge, and workers that know both.

use sqlx::PgPool;

use crate::{
    fake_github::{self, FakeGitHub},
    harness::Harness,
    https_remote::HttpsRemote,
};

/// Server, forge and harness of one test. The folders go last: the programs use them.
pub struct Place {
    pub harness: Harness,
    pub github: FakeGitHub,
    pub server: HttpsRemote,
    /// Of this test alone: workers of others are none of its business.
    pub token: String,
}

impl Place {
    pub async fn new(pool: PgPool) -> Self {
        Self::with_lfs(pool, None).await
    }

    /// The same in front of a server of Git LFS, which listens on this port of loopback.
    pub async fn with_lfs(pool: PgPool, lfs: Option<u16>) -> Self {
        let mut harness = Harness::new(pool);
        let token = format!("ghp_{}", uuid::Uuid::new_v4().simple());
        let server = HttpsRemote::start_with(&token, lfs);
        let path = fake_github::REPOSITORY;
        let url = format!("https://{}/{path}", server.host());
        let bare = server.repositories().join(format!("{path}.git"));
        harness.serve_remote(&bare, url);
        let github = FakeGitHub::start_over(&bare, &token).await;
        harness.set("AWO_ALLOWED_HOSTS", server.host());
        harness.set("AWO_ALLOW_LOCAL_REMOTES", "false");
        harness.set("AWO_GIT_CA_FILE", server.ca_file().display().to_string());
        harness.set("GITHUB_API_URL", github.api_url.clone());
        // The fake one has a port of its own.
        harness.set("AWO_GITHUB_HOST", server.host());
        // So much is logged that a careless line would show.
        harness.set("LOG_LEVEL", "archon_awo=trace,sqlx=debug,octocrab=debug,hyper=debug");
        Self { harness, github, server, token }
    }
}
