#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (jackfield_testkit::fuzz::target("envelope").check)(data);
});
