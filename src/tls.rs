//! Chooses the cryptography of TLS for libraries that take the process's choice.

/// Makes `ring` the choice, as everywhere in this program; fine to call again.
pub(crate) fn choose_provider() {
    // An error says that a choice was made before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
