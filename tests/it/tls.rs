//! What the TLS port offers, looked at from outside by OpenSSL: before a reload, after it, and after one that is refused.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Gate, More, gate_with};

/// What a client offers, and whether a handshake comes about with each profile: Intermediate, Modern, the custom one below.
const MATRIX: &[(&[&str], [bool; 3])] = &[
    (&["-tls1", "-cipher", "ALL@SECLEVEL=0"], [false, false, false]),
    (&["-tls1_1", "-cipher", "ALL@SECLEVEL=0"], [false, false, false]),
    (&["-tls1_2"], [true, false, true]),
    (&["-tls1_3"], [true, true, true]),
    (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], [true, false, false]),
    (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], [true, false, true]),
    (&["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], [true, false, false]),
    (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"], [false, false, false]),
    (&["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"], [false, false, false]),
    (&["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"], [false, false, false]),
    (&["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], [true, true, false]),
    (&["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], [true, true, true]),
    (&["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], [true, true, false]),
    (&["-tls1_3", "-groups", "X25519"], [true, true, false]),
    (&["-tls1_3", "-groups", "P-256"], [true, true, false]),
    (&["-tls1_3", "-groups", "P-384"], [true, true, true]),
    (&["-tls1_3", "-groups", "P-521"], [false, false, false]),
    (&["-tls1_2", "-groups", "P-384:P-256"], [true, false, true]),
    (&["-tls1_2", "-groups", "X448"], [false, false, false]),
];

const PROFILES: [&str; 3] = [
    "  profile: Intermediate\n",
    "  profile: Modern\n",
    "  profile: Custom\n  custom:\n    min_tls_version: VersionTLS12\n    \
     ciphers: [TLS_AES_256_GCM_SHA384, ECDHE-ECDSA-AES256-GCM-SHA384]\n    groups: [secp384r1]\n",
];

/// Whether OpenSSL shakes hands, with a certificate that it believes.
async fn shakes(gate: &Gate, offer: &'static [&'static str]) -> bool {
    let address = gate.https.unwrap().to_string();
    let authority = gate.config.with_file_name("tls-ca.crt");
    let run = move || {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &address, "-servername", "localhost", "-verify_return_error", "-CAfile"])
            .arg(&authority)
            .args(offer)
            .stdin(Stdio::null())
            .output()
            .expect("openssl is needed here");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let known = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!known.contains("Error with command") && !known.contains("unknown option"), "{offer:?}: {known}");
        output.status.success() && text.contains("Verify return code: 0 (ok)") && !text.contains("Cipher is (NONE)")
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn differences(gate: &Gate, profile: usize) -> Vec<String> {
    let mut found = Vec::new();
    for (offer, expected) in MATRIX {
        let got = shakes(gate, offer).await;
        if got != expected[profile] {
            found.push(format!("{}: {offer:?}: {got}", PROFILES[profile].trim()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_what_they_are_called_through_reloads() {
    let tls = format!("tls:\n  certificate_file: FOLDER/tls.crt\n  key_file: FOLDER/tls.key\n{}", PROFILES[0]);
    let gate = gate_with(More { listen: "  https: 127.0.0.1:0\n", rest: &tls, ..More::default() }).await;
    assert_eq!(differences(&gate, 0).await, Vec::<String>::new());
    let before = std::fs::read_to_string(&gate.config).unwrap();
    for profile in [1, 2, 0, 1] {
        std::fs::write(&gate.config, before.replace(PROFILES[0], PROFILES[profile])).unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(differences(&gate, profile).await, Vec::<String>::new());
    }
    // What is wrong leaves the last good one in place: a profile that is not spoken, a key of another certificate.
    std::fs::write(&gate.config, before.replace("Intermediate", "Old")).unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(differences(&gate, 1).await, Vec::<String>::new());
    let other = perses_sidecar_stack::openshift::Certificates::make(&["localhost"]).unwrap();
    std::fs::write(&gate.config, &before).unwrap();
    std::fs::write(gate.config.with_file_name("tls.key"), &other.key).unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(differences(&gate, 1).await, Vec::<String>::new());
    let ready = gate.http.send("GET", &format!("{}/readyz", gate.admin), &[], "").await.unwrap();
    assert!(ready.status == 200 && ready.text().contains("tls.key_file"), "{}", ready.text());
}
