# make demo: pictures and a table from the shipped models.  make train-demo: trains that set from nothing, hours on a CPU.
# make test: the tests.  make host: ComfyUI with the pack in it.
PYTHON ?= python3
export PYTHON
COMFYUI ?= $(or $(COMFYUI_PATH),$(HOME)/comfy/ComfyUI)
PACK = $(COMFYUI)/custom_nodes/comfyui-pgpis
PORT ?= 8188

.PHONY: demo train-demo test host train lint venv

venv:
	@host=$$(tools/hosts.sh | head -n 1); COMFYUI_PATH="$${host:-$$COMFYUI_PATH}" tools/make_venv.sh

demo: venv
	.venv/bin/python training/demo.py

test: venv
	@tools/run_tests.sh

train-demo: venv
	.venv/bin/python training/train_demo.py

train: venv
	.venv/bin/python training/train.py

lint: venv
	.venv/bin/ruff check .

host:
	@test -f "$(COMFYUI)/main.py" || { echo "no ComfyUI at $(COMFYUI); set COMFYUI_PATH to its folder"; exit 1; }
	@COMFYUI_PATH="$(COMFYUI)" tools/make_venv.sh
	@mkdir -p "$(COMFYUI)/custom_nodes"
	@test "$(CURDIR)" -ef "$(PACK)" || { test -d "$(PACK)" && ! test -L "$(PACK)" && { echo "$(PACK) is an installation of its" \
	  "own, which ComfyUI would run in place of this clone; move it away, or run make host in it"; exit 1; }; \
	  ln -sfn "$(CURDIR)" "$(PACK)"; }
	cd "$(COMFYUI)" && "$(CURDIR)/.venv/bin/python" main.py --listen 127.0.0.1 --port $(PORT) \
	  $$("$(CURDIR)/.venv/bin/python" -c "import torch; print('' if torch.cuda.is_available() or torch.backends.mps.is_available() else '--cpu')")
