// The editor's looks, in the colours that ComfyUI's theme names.

const CSS = `
.pgpis-pose { --pose-ground: var(--comfy-input-bg, #222); --pose-bar: var(--comfy-menu-bg, #353535);
  --pose-text: var(--input-text, #ddd); --pose-faint: var(--descrip-text, #999); --pose-line: var(--border-color, #4e4e4e);
  --pose-accent: var(--p-primary-color, #4a9eff); color: var(--pose-text); font: 12px/1.4 Inter, Arial, sans-serif;
  box-sizing: border-box; }
.pgpis-pose * { box-sizing: border-box; }
.pgpis-pose [hidden] { display: none !important; }
.pgpis-pose-node { display: flex; flex-direction: column; width: 100%; height: 100%; min-height: 400px; overflow: hidden;
  border: 1px solid var(--pose-line); border-radius: 8px; background: var(--pose-ground); }
.pgpis-pose-node .pgpis-pose-bar { padding: 2px 4px; background: var(--pose-bar); border-bottom: 1px solid var(--pose-line); }
.pgpis-pose-bar { display: flex; align-items: center; gap: 1px; flex: none; }
.pgpis-pose-gap { width: 1px; height: 14px; margin: 0 3px; background: var(--pose-line); flex: none; }
.pgpis-pose-button { display: grid; place-items: center; width: 26px; height: 26px; padding: 0; border: 0; border-radius: 5px;
  color: inherit; background: none; cursor: pointer; transition: background 0.12s, color 0.12s; flex: none; }
.pgpis-pose-button:hover:not(:disabled) { background: color-mix(in srgb, var(--pose-accent) 28%, transparent); color: #fff; }
.pgpis-pose-button:disabled { opacity: 0.32; cursor: default; }
.pgpis-pose-button:focus-visible, .pgpis-pose-done:focus-visible { outline: 1px solid var(--pose-accent); }
.pgpis-pose-button[data-action=open] { margin-left: auto; }
.pgpis-pose-view { position: relative; flex: 1 1 0; min-height: 0; overflow: hidden; touch-action: none; user-select: none; }
.pgpis-pose-view canvas { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.pgpis-pose-node .pgpis-pose-view:has(textarea:focus) { box-shadow: inset 0 0 0 1px color-mix(in srgb, var(--pose-accent) 70%, transparent); }
.pgpis-pose-keys { position: absolute; left: 0; top: 0; width: 1px; height: 1px; padding: 0; border: 0; opacity: 0; resize: none;
  pointer-events: none; }
.pgpis-pose-label { position: absolute; left: 8px; bottom: 7px; padding: 2px 7px; border-radius: 5px; pointer-events: none;
  background: rgb(0 0 0 / 0.62); color: #fff; font-variant-numeric: tabular-nums; white-space: pre; }
.pgpis-pose-notice { position: absolute; inset: auto 12px 12px; padding: 8px 10px; border-radius: 6px; pointer-events: none;
  background: color-mix(in srgb, var(--error-text, #ff4444) 20%, #181818); border: 1px solid var(--error-text, #ff4444); color: #fff; }
.pgpis-pose-dialog { position: fixed; inset: 0; width: min(96vw, 1500px); height: 94vh; max-width: none; max-height: none; margin: auto;
  padding: 0; border: 1px solid var(--pose-line); border-radius: 12px; background: var(--pose-ground); overflow: hidden;
  flex-direction: column; box-shadow: 0 24px 80px rgb(0 0 0 / 0.6); }
.pgpis-pose-dialog[open] { display: flex; }
.pgpis-pose-dialog::backdrop { background: rgb(0 0 0 / 0.6); }
.pgpis-pose-dialog header, .pgpis-pose-dialog footer { display: flex; align-items: center; gap: 14px; padding: 7px 12px;
  background: var(--pose-bar); flex: none; }
.pgpis-pose-dialog header { border-bottom: 1px solid var(--pose-line); }
.pgpis-pose-dialog footer { border-top: 1px solid var(--pose-line); }
.pgpis-pose-dialog .pgpis-pose-button { width: 30px; height: 30px; }
.pgpis-pose-title { font-size: 14px; font-weight: 600; white-space: nowrap; }
.pgpis-pose-people { display: flex; gap: 4px; }
.pgpis-pose-person { min-width: 24px; height: 24px; padding: 0 6px; border: 1px solid var(--pose-line); border-radius: 12px;
  background: none; color: inherit; cursor: pointer; }
.pgpis-pose-person.chosen { background: var(--pose-accent); border-color: var(--pose-accent); color: #fff; }
.pgpis-pose-slider { display: flex; align-items: center; gap: 8px; margin-left: auto; color: var(--pose-faint); }
.pgpis-pose-slider input { width: 110px; }
.pgpis-pose input[type=range] { accent-color: var(--pose-accent); }
.pgpis-pose-done { padding: 5px 16px; border: 0; border-radius: 6px; background: var(--pose-accent); color: #fff; font-weight: 600;
  cursor: pointer; }
.pgpis-pose-dialog footer input[type=range] { flex: 0 1 280px; min-width: 80px; }
.pgpis-pose-count { white-space: nowrap; font-variant-numeric: tabular-nums; }
.pgpis-pose-help { margin-left: auto; color: var(--pose-faint); white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
`

/** Puts the style into the page, once. */
export function addStyle() {
  if (document.getElementById("pgpis-pose-style")) return
  const style = Object.assign(document.createElement("style"), { id: "pgpis-pose-style", textContent: CSS })
  document.head.append(style)
}
