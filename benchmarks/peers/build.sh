#!/usr/bin/env bash
# build.sh FOLDER: llama.cpp built for this machine (a quarter of an hour on two cores), OpenVINO GenAI in a virtual
# environment, and the default checkpoint in the form each is measured with. What is there already is kept.
# Needs cmake, make and a C++ compiler; run by `make bench-peers` with this project's Python as $PYTHON.
set -euo pipefail
folder=$(realpath -m "${1:?a folder}")
python=${PYTHON:-.venv/bin/python}
version=0.3.36 # of llama-cpp-python, whose source package carries llama.cpp's
mkdir -p "$folder"

if [ ! -e "$folder/llama/.built" ]; then
  sources=$folder/llama/src
  mkdir -p "$sources"
  "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$sources" "llama-cpp-python==$version"
  tar --extract --gzip --file "$sources"/llama_cpp_python-"$version".tar.gz --directory "$sources"
  cmake -S "$sources/llama_cpp_python-$version/vendor/llama.cpp" -B "$folder/llama" -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_APP=OFF
  cmake --build "$folder/llama" --parallel "$(nproc)" --target llama-server llama-bench llama-quantize
  touch "$folder/llama/.built"
fi

if [ ! -s "$folder/q4_1.gguf" ]; then
  "$python" -c 'import sys; from weights.catalog import resolve; print(resolve(sys.argv[1]))' smollm2-135m-instruct |
    xargs -I{} ln -sf {} "$folder/q4_1.gguf"
fi
for kind in f32 q4_0; do
  [ -s "$folder/$kind.gguf" ] || "$folder/llama/bin/llama-quantize" --allow-requantize "$(realpath "$folder/q4_1.gguf")" "$folder/$kind.gguf" "${kind^^}"
done

if [ ! -e "$folder/openvino/.installed" ]; then
  "$python" -m venv "$folder/openvino"
  "$folder/openvino/bin/pip" install --quiet torch==2.13.0 openvino-genai "optimum-intel[openvino]"
  # Wanted for images alone; the package index's is built for CUDA, and does not load beside a CPU build of torch.
  "$folder/openvino/bin/pip" uninstall --quiet --yes torchvision
  touch "$folder/openvino/.installed"
fi
if [ ! -d "$folder/hf" ]; then
  "$python" -m benchmarks.peers.hf_folder "$folder/q4_1.gguf" "$folder/hf.part"
  mv "$folder/hf.part" "$folder/hf"
fi
for pair in int8:int8 float32:fp32; do
  model=$folder/ov-${pair%:*}
  [ -d "$model" ] && continue
  "$folder/openvino/bin/optimum-cli" export openvino --model "$folder/hf" \
    --task text-generation-with-past --weight-format "${pair#*:}" "$model.part"
  mv "$model.part" "$model"
done
