//! The HTTP server.

use std::net::{IpAddr, SocketAddr};

use super::{ConfigError, keys, source::Reader, values};

/// Where health checks and metrics are answered.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// `ARCHON_AWO_ENABLED`.
    pub enabled: bool,
    /// `ARCHON_AWO_PORT`; 0 for any free one.
    pub port: u16,
    /// `AWO_BIND`.
    pub bind: IpAddr,
}

impl HttpConfig {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, ConfigError> {
        Ok(Self {
            enabled: reader.value(&keys::HTTP_ENABLED, values::boolean)?,
            port: reader.value(&keys::HTTP_PORT, values::number(0..=u16::MAX))?,
            bind: reader.value(&keys::HTTP_BIND, |text| text.parse().ok())?,
        })
    }

    /// The address to listen on.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.port)
    }
}
