//! Hashes of passwords: Argon2id (RFC 9106) with 19 MiB of memory, 2 passes and 1 lane, which OWASP's Password Storage Cheat Sheet
//! asks for at least, a random salt of 16 bytes and an output of 32 bytes, in the PHC string format. The hash is sealed like any
//! secret, so a stolen database does not even allow guesses.
//!
//! A hash takes about 20 ms of a processor and [`MEMORY_BYTES`], which are kept for the next one. The caller bounds how many are made at
//! once, and makes them where nothing waits for the thread.

use std::sync::{Mutex, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, Salt};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};
use aws_lc_rs::rand;
use jackfield_domain::user::Password;
use jackfield_domain::{Error, Result, Secret};
use zeroize::Zeroize as _;

/// The memory that one hash takes while it is made.
pub const MEMORY_BYTES: usize = MEMORY_KIB as usize * 1_024;

const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;

/// A hash that no password has, but for a chance of 1 in 2^256. It is compared where there is none, so that this takes as long.
const NO_PASSWORD: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The memory of hashes that were made, for the next ones. If it were given back, the allocator would keep some for each thread that has
/// ever made a hash, which adds up to a multiple of what is in use.
static KEPT: Mutex<Vec<Vec<Block>>> = Mutex::new(Vec::new());

/// The stack that making a hash may have used.
const STACK_BYTES: usize = 16 * 1_024;

/// Makes the hash of a password, with a fresh salt.
///
/// # Errors
/// There are no random numbers or no memory.
pub fn password_hash(password: &Password) -> Result<Secret> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| Error::internal("no random numbers for a salt"))?;
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(Error::internal)?;
    let (algorithm, version, salt) = (Algorithm::Argon2id, Version::V0x13, Salt::new(&salt).map_err(Error::internal)?);
    let written = ParamsString::try_from(&params).map_err(Error::internal)?;
    let output = compute(&Argon2::new(algorithm, version, params), password, &salt)?;
    let hash = PasswordHash {
        algorithm: algorithm.ident(),
        version: Some(version.into()),
        params: written,
        salt: Some(salt),
        hash: Some(output),
    };
    Ok(Secret::new(hash.to_string()))
}

/// Returns whether a password has a hash. Without a hash none has it, and finding that out takes as long.
///
/// # Errors
/// The hash is none of [`password_hash`], or there is no memory.
pub fn password_matches(password: &Password, hash: Option<&Secret>) -> Result<bool> {
    let text = hash.map_or(NO_PASSWORD, Secret::expose);
    // The message of the parser could quote the hash.
    let parsed = PasswordHash::new(text).map_err(|_| Error::internal("a stored hash of a password does not parse"))?;
    let (Some(salt), Some(expected)) = (&parsed.salt, &parsed.hash) else {
        return Err(Error::internal("a stored hash of a password is not complete"));
    };
    let algorithm = Algorithm::try_from(parsed.algorithm.as_str()).map_err(Error::internal)?;
    let version = parsed.version.map(Version::try_from).transpose().map_err(Error::internal)?.unwrap_or_default();
    let params = Params::try_from(&parsed).map_err(Error::internal)?;
    let computed = compute(&Argon2::new(algorithm, version, params), password, salt)?;
    // The comparison takes as long for any two outputs.
    Ok(computed == *expected && hash.is_some())
}

/// Computes a hash, in memory that was used before.
fn compute(hasher: &Argon2<'_>, password: &Password, salt: &Salt) -> Result<Output> {
    let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut memory = kept().pop().unwrap_or_default();
    memory.resize(hasher.params().block_count(), Block::new());
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    let made = hasher.hash_password_into_with_memory(password.expose().as_bytes(), salt, &mut output, &mut memory[..]);
    clear_stack();
    memory.iter_mut().for_each(Block::zeroize);
    kept().push(memory);
    made.map_err(Error::internal)?;
    Output::new(&output).map_err(Error::internal)
}

/// Overwrites the stack below the caller, where the hash function leaves a part of the password.
#[inline(never)]
fn clear_stack() {
    std::hint::black_box([0_u8; STACK_BYTES]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::given("password", text.to_owned()).unwrap()
    }

    #[test]
    fn a_password_has_its_own_hash_only() {
        let hash = password_hash(&password("correct horse")).unwrap();
        assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.expose());
        assert!(password_matches(&password("correct horse"), Some(&hash)).unwrap());
        for other in ["correct horse ", "Correct horse", "x"] {
            assert!(!password_matches(&password(other), Some(&hash)).unwrap(), "{other}");
        }
        let again = password_hash(&password("correct horse")).unwrap();
        assert_ne!(hash.expose(), again.expose(), "the salt is random");
    }

    #[test]
    fn without_a_hash_no_password_is_right() {
        assert!(!password_matches(&password("correct horse"), None).unwrap());
        let zeros = PasswordHash::new(NO_PASSWORD).unwrap();
        let made = PasswordHash::new(password_hash(&password("x")).unwrap().expose()).unwrap();
        assert_eq!(zeros.params, made.params, "both take as long");
        assert_eq!(zeros.hash.unwrap().as_bytes().len(), made.hash.unwrap().as_bytes().len());
        assert_eq!(zeros.salt.unwrap().len(), made.salt.unwrap().len());
    }

    #[test]
    fn a_damaged_hash_is_an_error_that_does_not_show_it() {
        let error = password_matches(&password("x"), Some(&Secret::new("$argon2id$damaged".to_owned()))).unwrap_err();
        assert_eq!(format!("{error:?}").matches("damaged").count(), 0, "{error:?}");
    }

    /// The hash is that of the reference implementation.
    #[test]
    fn a_hash_of_another_program_is_understood() {
        const HASH: &str =
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdCBvZiAxNiBieXRlcw$DSSAsMrd3GP5qzIEzbDcTith4+2dtHOU62k1/2D+c18";
        assert!(password_matches(&password("correct horse"), Some(&Secret::new(HASH.to_owned()))).unwrap());
        let damaged = Secret::new(HASH.replace("DSSA", "DSSB"));
        assert!(!password_matches(&password("correct horse"), Some(&damaged)).unwrap());
    }
}
