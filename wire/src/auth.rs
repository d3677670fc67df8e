//! Proof that a client knows the server's secret, without sending it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a proof.
pub const PROOF_LEN: usize = 32;

/// HMAC-SHA256 under `secret` of a label, the server's challenge and the
/// client's nonce: the payload of an AUTH.
pub fn proof(secret: &[u8], challenge: &[u8; 16], nonce: &[u8; 16]) -> [u8; PROOF_LEN] {
    mac(secret, challenge, nonce).finalize().into_bytes().into()
}

/// Whether `given` is the proof, compared in constant time.
pub fn verify(secret: &[u8], challenge: &[u8; 16], nonce: &[u8; 16], given: &[u8]) -> bool {
    mac(secret, challenge, nonce).verify_slice(given).is_ok()
}

fn mac(secret: &[u8], challenge: &[u8; 16], nonce: &[u8; 16]) -> Hmac<Sha256> {
    // HMAC takes keys of any length; the error type exists for other MACs.
    let mut mac = match Hmac::<Sha256>::new_from_slice(secret) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    mac.update(b"tmem auth v1");
    mac.update(challenge);
    mac.update(nonce);
    mac
}
