//! A journal that cannot be written: nothing is begun that could lose a token, and errors, log and metric say why.

use std::fs;
use std::path::PathBuf;

use jackfield_api::v1;
use jackfield_testkit::{ProviderOptions, TestServer, on_both};
use tonic::Code;

use super::world::{World, eventually, refused};

/// A directory whose place a file has taken. Whatever rights a server has, it cannot write there.
struct Taken {
    path: PathBuf,
    aside: PathBuf,
}

// === impl Taken ===

impl Taken {
    fn take(path: PathBuf) -> Self {
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        fs::write(&path, "").unwrap();
        Taken { path, aside }
    }

    fn give_back(self) {
        fs::remove_file(&self.path).unwrap();
        fs::rename(&self.aside, &self.path).unwrap();
    }
}

fn unwritable(server: &TestServer) -> f64 {
    server.metric("jackfield_credential_journals_unwritable", &[]).unwrap()
}

on_both! {
    async fn no_refresh_begins_without_a_journal(server) {
        let world = World::on(&server, ProviderOptions::default()).await;
        let [expired, good] = [world.expired("ada").await, world.granted("bob", 25).await];
        assert_eq!(unwritable(&server), 0.0);
        let taken = Taken::take(server.data_dir().join("journal/refreshes"));
        for _ in 0..2 {
            let refusal = refused(world.issue(&expired.credential).await, Code::Unavailable, "SERVER_UNAVAILABLE");
            assert!(refusal.status.message().contains("journal"), "{refusal:?}");
            assert!(refusal.details.retry_info().is_some());
        }
        assert_eq!(unwritable(&server), 1.0);
        assert_eq!(world.issue(&good.credential).await.unwrap().access_token, good.access_token);
        let explained = world.explain(&expired.credential).await;
        let expected = (v1::ErrorReason::ServerUnavailable, v1::NextStep::Wait);
        assert_eq!((explained.obstacle(), explained.next_step()), expected, "{explained:?}");
        assert!(explained.explanation.contains("refresh.journal"), "{explained:?}");
        assert_eq!((&*explained.attempts, explained.next_attempt_time), (&[][..], None));
        assert_eq!(world.provider.requests().len(), 0, "nothing was sent");
        assert_eq!(explained.credential.unwrap().refresh_failure_count, 0, "the credential has not failed");

        taken.give_back();
        let issued = world.issue(&expired.credential).await.unwrap();
        assert_eq!(issued.access_token, world.provider.live(expired.family).unwrap().access_token);
        assert_eq!(unwritable(&server), 0.0);
    }

    /// The schedule goes on by itself once it can.
    async fn the_schedule_waits_for_the_journal(backend: Backend) {
        let server = TestServer::start_with(backend, |config| config.refresh.ahead = true).await;
        let world = World::on(&server, ProviderOptions::default()).await;
        let taken = Taken::take(server.data_dir().join("journal/refreshes"));
        let grant = world.expired("ada").await;
        eventually("it is noticed", || unwritable(&server) == 1.0).await;
        assert_eq!(world.provider.requests().len(), 0);
        taken.give_back();
        eventually("it is refreshed", || world.provider.exchanges(grant.family) == 1).await;
        assert_eq!(unwritable(&server), 0.0);
    }

    async fn a_start_names_the_setting_and_the_directory(server) {
        let mut server = server;
        let directory = server.data_dir().join("elsewhere");
        fs::write(&directory, "not a directory").unwrap();
        server.config_mut().refresh.journal = directory.clone();
        let error = server.try_restart().await.unwrap_err();
        let path = directory.join("refreshes").display().to_string();
        assert!(error.contains("refresh.journal: ") && error.contains(&path), "{error}");
        fs::remove_file(&directory).unwrap();
        server.try_restart().await.unwrap();
        assert!(directory.join("refreshes").is_dir() && directory.join("authorizations").is_dir());
    }
}
