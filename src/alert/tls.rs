//! TLS for webhooks: who answers has to show a certificate that the system, or a file of the configuration, vouches for.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Where distributions keep the certificates that the system trusts: Debian, Red Hat, SUSE and Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Encrypts a connection. The certificates are read anew for each: notices are rare, and a bundle changes.
///
/// # Errors
/// Nobody vouches for who answers, or there is nobody to trust.
pub async fn wrap(stream: TcpStream, host: &str, ca_file: Option<&Path>) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|e| format!("{host}: {e}"))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(trusted(ca_file)?)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    connector
        .connect(name, stream)
        .await
        .map_err(|e| format!("{host}: {e}"))
}

fn trusted(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let bundle = ca_file.or_else(|| BUNDLES.iter().map(Path::new).find(|path| path.exists()));
    let bundle = bundle.ok_or("there are no certificates to trust; install ca-certificates or set ca_file")?;
    let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", bundle.display());
    let certificates = CertificateDer::pem_file_iter(bundle).map_err(|e| wrong(&e))?;
    let mut store = RootCertStore::empty();
    // A certificate that is not understood vouches for nobody; the others count.
    store.add_parsable_certificates(certificates.filter_map(Result::ok));
    if store.is_empty() {
        return Err(wrong(&"no certificate in it"));
    }
    Ok(store)
}
