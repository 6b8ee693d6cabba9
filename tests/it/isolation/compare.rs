//! One program, with and without the other tenant.

use jackfield_api::v1;
use jackfield_testkit::{Callers, fixture};

use super::logins::LoginSystem;
use super::program::{Op, Player, Who};
use super::wire::Wire;

/// Two principals, each of the tenant with the same name. Each program recreates both tenants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    /// The principal whose answers are compared.
    pub(super) alpha: &'a str,
    /// The other principal.
    pub(super) beta: &'a str,
}

/// The pair that every test server has.
pub(super) const PAIR: Pair<'static> = Pair { alpha: "alpha", beta: "beta" };

/// A program, shown in short form if it fails.
#[derive(Clone)]
pub(super) struct Program(pub(super) Vec<(Who, Op)>);

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(who, op)| writeln!(f, "{who:?} {op:?}"))
    }
}

/// The numbers of answered and refused calls: programs in which nothing succeeds would prove nothing.
#[derive(Default)]
pub(super) struct Answered {
    pub(super) answered: usize,
    pub(super) refused: usize,
}

impl Answered {
    pub(super) fn add(&mut self, other: Answered) {
        self.answered += other.answered;
        self.refused += other.refused;
    }

    pub(super) fn check(&self) {
        let all = self.answered + self.refused;
        assert!(self.answered > all / 4 && self.refused > all / 8, "{} of {all} were answered", self.answered);
    }
}

/// Runs alpha's calls alone and interleaved with beta's, each time in new tenants.
pub(super) async fn compare(
    server: &impl Callers,
    system: &LoginSystem,
    pair: Pair<'_>,
    program: &[(Who, Op)],
) -> (Result<(), String>, Answered) {
    let wire = Wire::new();
    let player = |name| Player::new(server.client(name), server.pki().ca_pem(), system.access(name));
    renew(server, pair).await;
    let (mut alone, idle) = (player(pair.alpha), player(pair.beta));
    alone.prepare(&wire).await;
    for (_, op) in program.iter().filter(|(who, _)| *who == Who::Alpha) {
        alone.step(&wire, op, &idle).await;
    }

    renew(server, pair).await;
    let (mut alpha, mut beta) = (player(pair.alpha), player(pair.beta));
    alpha.prepare(&wire).await;
    beta.prepare(&wire).await;
    for (who, op) in program {
        match who {
            Who::Alpha => alpha.step(&wire, op, &beta).await,
            Who::Beta => beta.step(&wire, op, &alpha).await,
        }
    }
    let seen = Answered { answered: alpha.answered, refused: alpha.transcript.len() - alpha.answered };
    for (at, (without, with)) in alone.transcript.iter().zip(&alpha.transcript).enumerate() {
        if without != with {
            return (Err(format!("call {at} differs\n  alone: {without}\n  both:  {with}")), seen);
        }
    }
    let common = alpha.listed_all(&wire).await.intersection(&beta.made()).cloned().collect::<Vec<_>>();
    if !common.is_empty() {
        return (Err(format!("alpha lists resources of beta: {common:?}")), seen);
    }
    (Ok(()), seen)
}

/// Deletes both tenants with everything in them, and creates them again with the same names.
async fn renew(server: &impl Callers, pair: Pair<'_>) {
    let mut admin = server.client("operator").admin();
    for name in [pair.alpha, pair.beta] {
        let request = v1::DeleteTenantRequest {
            reference: format!("name:{name}"),
            cascade: true,
            allow_missing: true,
            ..Default::default()
        };
        admin.delete_tenant(request).await.unwrap();
        let request = v1::CreateTenantRequest { tenant: Some(fixture::a_tenant(name)), ..Default::default() };
        admin.create_tenant(request).await.unwrap();
    }
}
