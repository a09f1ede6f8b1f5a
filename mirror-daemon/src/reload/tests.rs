//! Every way in which a configuration file is changed, on a real file system.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
/// Longer than a change takes to be told.
const QUIET: Duration = Duration::from_millis(600);

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn is_told(watch: &mut ConfigWatch) -> bool {
    time::timeout(SOON, watch.changed()).await.is_ok()
}

async fn is_quiet(watch: &mut ConfigWatch) -> bool {
    time::timeout(QUIET, watch.changed()).await.is_err()
}

#[tokio::test]
async fn write_in_place_is_told_once() {
    let root = directory();
    let file = root.path().join("c.toml");
    fs::write(&file, "a").unwrap();
    let mut watch = ConfigWatch::new(&file);
    fs::write(&file, "b").unwrap();
    fs::write(&file, "c").unwrap();
    assert!(is_told(&mut watch).await);
    assert!(is_quiet(&mut watch).await, "two writes in a row are one change");
    fs::write(&file, "d").unwrap();
    assert!(is_told(&mut watch).await);
}

#[tokio::test]
async fn rename_over_the_file_is_told_again_and_again() {
    let root = directory();
    let file = root.path().join("c.toml");
    fs::write(&file, "a").unwrap();
    let mut watch = ConfigWatch::new(&file);
    for round in 0..3 {
        fs::write(root.path().join(".c.tmp"), format!("{round}")).unwrap();
        fs::rename(root.path().join(".c.tmp"), &file).unwrap();
        assert!(is_told(&mut watch).await, "round {round}");
    }
    assert!(is_quiet(&mut watch).await);
}

#[tokio::test]
async fn config_map_swap_is_told_again_and_again() {
    let root = directory();
    let at = |name: &str| root.path().join(name);
    let generation = |name: &str| {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("c.toml"), name).unwrap();
        let _ = fs::remove_file(at("..data_tmp"));
        symlink(name, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    generation("..1");
    symlink("..data/c.toml", at("c.toml")).unwrap();
    let mut watch = ConfigWatch::new(&at("c.toml"));
    for (old, new) in [("..1", "..2"), ("..2", "..3")] {
        generation(new);
        fs::remove_dir_all(at(old)).unwrap();
        assert!(is_told(&mut watch).await, "{new}");
        assert_eq!(fs::read_to_string(at("c.toml")).unwrap(), new);
    }
    assert!(is_quiet(&mut watch).await);
}

/// As the kubelet's atomic writer does it; on a machine that does much else some tries may take longer.
#[tokio::test]
async fn config_map_swap_is_told_within_two_seconds() {
    const TRIES: usize = 5;
    let root = directory();
    let at = |name: &str| root.path().join(name);
    let swap = |number: usize| {
        let name = format!("..2026_{number}");
        fs::create_dir(at(&name)).unwrap();
        fs::write(at(&name).join("c.toml"), &name).unwrap();
        symlink(&name, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        if let Some(former) = number.checked_sub(1) {
            fs::remove_dir_all(at(&format!("..2026_{former}"))).unwrap();
        }
    };
    swap(0);
    symlink("..data/c.toml", at("c.toml")).unwrap();
    let mut watch = ConfigWatch::new(&at("c.toml"));
    let mut best = Duration::MAX;
    for number in 1..=TRIES {
        let begun = Instant::now();
        swap(number);
        assert!(is_told(&mut watch).await);
        best = best.min(begun.elapsed());
        while !is_quiet(&mut watch).await {}
    }
    assert!(best < Duration::from_secs(2), "{best:?}");
}

#[tokio::test]
async fn file_in_a_directory_that_appears_later_is_told() {
    let root = directory();
    let file = root.path().join("a/b/c.toml");
    let mut watch = ConfigWatch::new(&file);
    assert!(is_quiet(&mut watch).await);
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    fs::write(&file, "a").unwrap();
    assert!(is_told(&mut watch).await);
    while !is_quiet(&mut watch).await {}
    fs::write(&file, "b").unwrap();
    assert!(is_told(&mut watch).await, "the new directory is watched");
}

#[tokio::test]
async fn directory_that_is_replaced_is_told_and_followed() {
    let root = directory();
    let at = |name: &str| root.path().join(name);
    for name in ["conf", "conf.new"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("c.toml"), name).unwrap();
    }
    let mut watch = ConfigWatch::new(&at("conf/c.toml"));
    fs::rename(at("conf"), at("conf.old")).unwrap();
    fs::rename(at("conf.new"), at("conf")).unwrap();
    assert!(is_told(&mut watch).await);
    while !is_quiet(&mut watch).await {}
    fs::write(at("conf.old/c.toml"), "x").unwrap();
    assert!(is_quiet(&mut watch).await, "the old directory no longer matters");
    fs::write(at("conf/c.toml"), "y").unwrap();
    assert!(is_told(&mut watch).await);
}

#[tokio::test]
async fn reading_the_file_and_changing_its_neighbours_is_not_told() {
    let root = directory();
    let file = root.path().join("c.toml");
    fs::write(&file, "a").unwrap();
    let mut watch = ConfigWatch::new(&file);
    fs::read(&file).unwrap();
    fs::write(root.path().join("other"), "b").unwrap();
    assert!(is_quiet(&mut watch).await);
}

#[tokio::test]
async fn change_between_the_watch_and_the_first_call_is_told() {
    let root = directory();
    let file = root.path().join("c.toml");
    fs::write(&file, "a").unwrap();
    let mut watch = ConfigWatch::new(&file);
    fs::remove_file(&file).unwrap();
    assert!(is_told(&mut watch).await, "a file that vanishes is a change too");
}

#[tokio::test]
async fn changes_that_do_not_cease_put_the_news_off_for_a_bounded_time() {
    let root = directory();
    let file = root.path().join("c.toml");
    fs::write(&file, "a").unwrap();
    let mut watch = ConfigWatch::new(&file);
    let busy = tokio::spawn(async move {
        loop {
            fs::write(&file, "b").unwrap();
            time::sleep(Duration::from_millis(20)).await;
        }
    });
    let before = Instant::now();
    assert!(is_told(&mut watch).await);
    assert!(before.elapsed() < MAX_DEBOUNCE * 3);
    busy.abort();
}

#[tokio::test]
async fn call_that_is_given_up_loses_nothing() {
    let root = directory();
    let file = root.path().join("c.toml");
    fs::write(&file, "a").unwrap();
    let mut watch = ConfigWatch::new(&file);
    fs::write(&file, "b").unwrap();
    assert!(time::timeout(DEBOUNCE / 4, watch.changed()).await.is_err(), "still within the debounce");
    assert!(is_told(&mut watch).await);
}

#[tokio::test(start_paused = true)]
async fn without_inotify_the_file_is_polled_and_only_changes_are_told() {
    let root = directory();
    let file = root.path().join("c.toml");
    fs::write(&file, "a").unwrap();
    let mut watch = ConfigWatch { watches: None, ..ConfigWatch::new(&file) };
    assert!(time::timeout(POLL_INTERVAL * 4, watch.changed()).await.is_err());
    fs::write(&file, "longer").unwrap();
    assert!(time::timeout(POLL_INTERVAL * 4, watch.changed()).await.is_ok());
}

#[tokio::test]
async fn report_coalesces_and_ends_with_its_receiver() {
    let root = directory();
    let file = root.path().join("c.toml");
    fs::write(&file, "a").unwrap();
    let (reload_tx, mut reload_rx) = mpsc::channel(1);
    let reporter = tokio::spawn(ConfigWatch::new(&file).report(reload_tx));
    fs::write(&file, "b").unwrap();
    assert_eq!(time::timeout(SOON, reload_rx.recv()).await.unwrap(), Some(ReloadCause::File));
    drop(reload_rx);
    time::timeout(SOON, reporter).await.unwrap().unwrap();
}

#[tokio::test]
async fn everything_below_a_watched_directory_is_told() {
    let root = directory();
    let at = |name: &str| root.path().join("manifests").join(name);
    let mut watch = ConfigWatch::of_tree(&at(""));
    fs::create_dir(at("")).unwrap();
    assert!(is_told(&mut watch).await, "it appears");
    fs::write(at("a.yaml"), "a").unwrap();
    assert!(is_told(&mut watch).await, "a new file");
    fs::write(at("a.yaml"), "b").unwrap();
    assert!(is_told(&mut watch).await, "a file written in place");
    fs::create_dir(at("below")).unwrap();
    assert!(is_told(&mut watch).await, "a new directory");
    fs::write(at("below/c.yaml"), "c").unwrap();
    assert!(is_told(&mut watch).await, "a file in it");
    fs::write(at(".tmp"), "d").unwrap();
    fs::rename(at(".tmp"), at("below/c.yaml")).unwrap();
    assert!(is_told(&mut watch).await, "a file replaced");
    fs::remove_file(at("below/c.yaml")).unwrap();
    assert!(is_told(&mut watch).await, "a file removed");
    fs::write(root.path().join("neighbour"), "e").unwrap();
    fs::read_to_string(at("a.yaml")).unwrap();
    assert!(is_quiet(&mut watch).await, "neighbours and readers are no change");
}

#[tokio::test]
async fn config_map_swap_in_a_watched_directory_is_told() {
    let root = directory();
    let at = |name: &str| root.path().join(name);
    for name in ["..1", "..2"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("a.yaml"), name).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.yaml", at("a.yaml")).unwrap();
    let mut watch = ConfigWatch::of_tree(root.path());
    symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    assert!(is_told(&mut watch).await);
    assert_eq!(fs::read_to_string(at("a.yaml")).unwrap(), "..2");
}

#[tokio::test(start_paused = true)]
async fn watched_directory_is_polled_without_inotify() {
    let root = directory();
    fs::create_dir(root.path().join("below")).unwrap();
    let mut watch = ConfigWatch::of_tree(root.path());
    watch.watches = None;
    assert!(time::timeout(POLL_INTERVAL * 3, watch.changed()).await.is_err());
    fs::write(root.path().join("below/a.yaml"), "a").unwrap();
    assert!(time::timeout(POLL_INTERVAL * 3, watch.changed()).await.is_ok());
}
