//! The TLS side of a listener.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::config::Tls;

/// Builds what a listener offers: TLS 1.2 and 1.3, or 1.3 alone; h2 and HTTP/1.1 by ALPN.
///
/// # Errors
/// When chain and key cannot be read or do not belong together; the text says which.
pub fn server_config(tls: &Tls) -> Result<ServerConfig, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&tls.certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("tls.certificate_file: {error}"))?;
    if chain.is_empty() {
        return Err("tls.certificate_file: no certificate in it".to_owned());
    }
    let key =
        PrivateKeyDer::from_pem_slice(tls.key.expose().as_bytes()).map_err(|error| format!("tls.key_file: {error}"))?;
    let versions: &[&rustls::SupportedProtocolVersion] =
        if tls.only_13 { &[&rustls::version::TLS13] } else { &[&rustls::version::TLS13, &rustls::version::TLS12] };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(|error| format!("tls: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("tls: certificate and key: {error}"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
