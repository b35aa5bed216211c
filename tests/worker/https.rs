//! Orders on a remote behind HTTPS, a private certificate authority and a token.
