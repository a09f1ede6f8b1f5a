//! The public corpus http2jp/hpack-test-case, in full, when it lies beside the repository.

use super::super::*;
use super::{LIMITS, encoder::Pair, known_pairs};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One header block of the corpus.
pub(super) struct Case {
    pub(super) wire: Vec<u8>,
    pub(super) fields: Vec<Pair>,
    /// The size acknowledged just before.
    pub(super) setting: Option<u32>,
}

/// All stories, with their names; each shares one compression context. A small part is in the repository.
pub(super) fn stories() -> Vec<(String, Vec<Case>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let full = ["../../shared/fixtures/hpack", "../../../shared/fixtures/hpack"];
    let here = root.join("../tests/fixtures/hpack");
    let found = full.iter().map(|path| root.join(path)).find(|path| path.is_dir()).unwrap_or(here);
    let mut files: Vec<PathBuf> = Vec::new();
    for encoder in std::fs::read_dir(&found).expect("a directory of fixtures") {
        let encoder = encoder.expect("an entry").path();
        if encoder.is_dir() {
            files.extend(std::fs::read_dir(encoder).expect("a directory").map(|f| f.expect("a file").path()));
        }
    }
    files.sort();
    files.iter().map(|file| (file.display().to_string(), story(file))).collect()
}

fn story(file: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(file).expect("a readable file");
    let story: Value = serde_json::from_str(&text).expect("a JSON file");
    story["cases"].as_array().expect("cases").iter().map(case).collect()
}

fn case(case: &Value) -> Case {
    let hex = case["wire"].as_str().expect("wire bytes");
    let wire = (0..hex.len() / 2)
        .map(|place| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).expect("hex digits"))
        .collect();
    let headers = case["headers"].as_array().expect("headers").iter();
    let fields = headers
        .flat_map(|field| field.as_object().expect("a field").iter())
        .map(|(name, value)| (name.clone().into_bytes(), value.as_str().expect("a value").into()))
        .collect();
    let setting = case["header_table_size"].as_u64().map(|size| size as u32);
    Case { wire, fields, setting }
}

#[test]
fn public_corpus_decodes_without_one_error() {
    let mut blocks = 0;
    for (name, cases) in stories() {
        let mut decoder = HpackDecoder::new(LIMITS);
        let mut out = FieldBlock::default();
        for (number, case) in cases.iter().enumerate() {
            if let Some(setting) = case.setting {
                decoder.bound_size_updates(setting);
            }
            assert_eq!(decoder.decode(&case.wire, &mut out), Ok(()), "{name} case {number}");
            assert_eq!(known_pairs(&out).as_ref(), Some(&case.fields), "{name} case {number}");
            assert!(decoder.is_whole());
            blocks += 1;
        }
    }
    assert!(blocks >= 100, "only {blocks} header blocks found");
}

#[test]
fn joined_anywhere_in_the_corpus_no_known_field_is_wrong() {
    let (mut whole, mut known, mut unknown) = (0, 0_u32, 0_u32);
    for (name, cases) in stories() {
        for start in [1, cases.len() / 3, cases.len() / 2] {
            let mut decoder = HpackDecoder::joined(LIMITS);
            let mut out = FieldBlock::default();
            for case in cases.iter().skip(start) {
                assert_eq!(decoder.decode(&case.wire, &mut out), Ok(()), "{name}");
                assert_eq!(out.len(), case.fields.len());
                for (field, truth) in out.iter().zip(&case.fields) {
                    match field {
                        DecodedField::Known { name, value, .. } => {
                            known += 1;
                            assert_eq!((name, value), (&truth.0[..], &truth.1[..]));
                        }
                        DecodedField::Unknown { value } => {
                            unknown += 1;
                            assert!(value.is_none_or(|value| value == truth.1));
                        }
                    }
                }
                whole += u32::from(out.unknown_count() == 0);
            }
        }
    }
    assert!(whole > 0 && known > unknown, "{whole} whole blocks, {known} fields known, {unknown} unknown");
}
