//! Which server a runtime is, by the words that tell it best first: its images, its own name, the formats that it takes.

use serde_json::Value;

use super::super::workload::Engine;

/// Words of images, names and formats, and whose they are. The first that fits counts.
const WORDS: [(&str, Engine); 24] = [
    ("vllm", Engine::Vllm),
    ("openvino", Engine::OpenVino),
    ("ovms", Engine::OpenVino),
    ("caikit", Engine::Tgis),
    ("tgis", Engine::Tgis),
    ("text-generation-inference", Engine::Tgis),
    ("triton", Engine::Triton),
    ("mlserver", Engine::MlServer),
    ("sklearnserver", Engine::KServe),
    ("xgbserver", Engine::KServe),
    ("lgbserver", Engine::KServe),
    ("paddleserver", Engine::KServe),
    ("pmmlserver", Engine::KServe),
    ("huggingfaceserver", Engine::KServe),
    ("predictiveserver", Engine::KServe),
    ("kserve-sklearn", Engine::KServe),
    ("kserve-xgb", Engine::KServe),
    ("kserve-lgb", Engine::KServe),
    ("kserve-huggingface", Engine::KServe),
    ("kserve-custom", Engine::KServe),
    ("sklearn", Engine::MlServer),
    ("xgboost", Engine::MlServer),
    ("lightgbm", Engine::MlServer),
    ("mlflow", Engine::MlServer),
];

/// The engine of a ServingRuntime or ClusterServingRuntime; none if nothing in it tells.
#[must_use]
pub fn engine_of_runtime(raw: &Value) -> Option<Engine> {
    let spec = &raw["spec"];
    let name = |value: &Value| engine_of_word(value["metadata"]["name"].as_str().unwrap_or_default());
    let formats = spec["supportedModelFormats"].as_array().into_iter().flatten();
    engine_of_containers(spec)
        .or_else(|| name(raw))
        .or_else(|| formats.filter_map(|format| engine_of_word(format["name"].as_str()?)).next())
}

/// By the images of a pod's containers, the model's own first.
pub(super) fn engine_of_containers(spec: &Value) -> Option<Engine> {
    let containers = spec["containers"].as_array()?;
    let image = |container: &Value| engine_of_word(container["image"].as_str().unwrap_or_default());
    let own = containers.iter().find(|container| container["name"] == "kserve-container");
    own.and_then(image).or_else(|| containers.iter().find_map(image))
}

pub(super) fn engine_of_word(text: &str) -> Option<Engine> {
    // Nobody needs more to say it.
    let text: String = text.chars().take(512).collect::<String>().to_ascii_lowercase();
    WORDS.iter().find(|(word, _)| text.contains(word)).map(|(_, engine)| *engine)
}
