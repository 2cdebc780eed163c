// The editor's buttons: icons drawn as SVG, what each does, and when it can.

const ICONS = {
  undo: '<path d="M3 6h7a3.5 3.5 0 0 1 0 7H6"/><path d="M5.5 3.5 3 6l2.5 2.5"/>',
  redo: '<path d="M13 6H6a3.5 3.5 0 0 0 0 7h4"/><path d="M10.5 3.5 13 6l-2.5 2.5"/>',
  mirror: '<path d="M8 2v12" stroke-dasharray="2 1.6"/><path d="M6 5v6L2 11z"/><path d="M10 5v6l4 0z"/>',
  hide: '<path d="M1.5 8S4 3.8 8 3.8 14.5 8 14.5 8 12 12.2 8 12.2 1.5 8 1.5 8z"/><circle cx="8" cy="8" r="1.9"/><path d="M3 13 13 3"/>',
  add: '<circle cx="6.5" cy="4.5" r="2.3"/><path d="M2.5 13.500c0-3 1.8-4.5 4-4.5 1 0 1.9.3 2.6.9"/><path d="M12 9v5M9.5 11.500h5"/>',
  remove: '<circle cx="6.5" cy="4.5" r="2.3"/><path d="M2.5 13.500c0-3 1.8-4.5 4-4.5 1 0 1.9.3 2.6.9"/><path d="M9.5 11.500h5"/>',
  copy: '<rect x="5.5" y="5.5" width="8" height="8" rx="1.3"/><path d="M10.5 5.500v-2a1 1 0 0 0-1-1h-6a1 1 0 0 0-1 1v6a1 1 0 0 0 1 1h2"/>',
  paste: '<rect x="3" y="3.5" width="10" height="10.5" rx="1.3"/><path d="M6 3.500V2.200h4v1.3"/><path d="M5.8 7.500h4.400M5.8 10.300h4.4"/>',
  input: '<path d="M9.5 2.500h3a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1h-3"/><path d="M2 8h7.5"/><path d="M6.5 5 9.5 8l-3 3"/>',
  clear: '<circle cx="8" cy="3.6" r="1.7"/><path d="M8 5.500v4.200M4 7h8M8 9.7 5.5 14M8 9.700l2.5 4.3"/>',
  text: '<path d="M6 2.500c-1.6 0-2 .6-2 2 0 2 0 2.8-1.8 3.500C4 8.7 4 9.5 4 11.500c0 1.4.4 2 2 2"/><path d="M10 2.500c1.6 0 2 .6 2 2 0 2 0 2.8 1.8 3.5-1.8.7-1.8 1.5-1.8 3.5 0 1.4-.4 2-2 2"/>',
  open: '<path d="M9.5 2.500h4v4M6.5 13.500h-4v-4M13.5 2.5 9 7M2.5 13.5 7 9"/>',
  fit: '<path d="M2.5 5.500v-3h3M10.5 2.500h3v3M13.5 10.500v3h-3M5.5 13.500h-3v-3"/><circle cx="8" cy="8" r="1.6"/>',
  frameAdd: '<rect x="2" y="3.5" width="7.5" height="9" rx="1"/><path d="M12.5 5.500v5M10.5 8h4"/>',
  frameRemove: '<rect x="2" y="3.5" width="7.5" height="9" rx="1"/><path d="M10.8 8h3.7"/>',
  before: '<path d="M10 3 5 8l5 5"/>',
  after: '<path d="M6 3l5 5-5 5"/>'
}
const GAP = null

/** name -> [what it says, what it does with the editor, whether it can]; an editor is {session, view, open, showText}. */
const ACTIONS = {
  undo: ["Undo (Ctrl+Z)", ({ session }) => session.undo(), ({ session }) => session.history.canUndo],
  redo: ["Redo (Ctrl+Y)", ({ session }) => session.redo(), ({ session }) => session.history.canRedo],
  mirror: ["Mirror this person: left becomes right (M)", ({ session }) => session.mirror(), ({ session }) => !!session.selected],
  hide: ["Hide or show the chosen joint (H, or double click it)", ({ session }) => session.toggle(),
         ({ session }) => !!session.selected && session.joint >= 0],
  add: ["Add a person (N)", ({ session }) => session.addPerson(), () => true],
  remove: ["Remove this person (Delete)", ({ session }) => session.removePerson(), ({ session }) => !!session.selected],
  copy: ["Copy this person (Ctrl+C)", ({ session }) => session.copy(), ({ session }) => !!session.selected],
  paste: ["Paste (Ctrl+V): in the same frame a second person, in another frame this person's pose", ({ session }) => session.paste(),
          ({ session }) => session.canPaste],
  input: ["Take the pose of the input, as of the last run, in place of this one", ({ session }) => session.takeInput(),
          ({ session }) => !!session.input],
  clear: ["Start anew with one standing person", ({ session }) => session.clear(), () => true],
  text: ["Show or hide the pose as text (JSON), to copy or paste", ({ showText }) => showText(), () => true],
  open: ["Open large", ({ open }) => open(), () => true],
  fit: ["Show all of the canvas (0)", ({ view }) => view.reset(), () => true],
  before: ["Frame before (Page Up)", ({ session }) => session.goTo(session.frame - 1), ({ session }) => session.frame > 0],
  after: ["Next frame (Page Down)", ({ session }) => session.goTo(session.frame + 1),
          ({ session }) => session.frame < session.frames.length - 1],
  frameAdd: ["Add a frame behind this one with the same people (Ctrl+D)", ({ session }) => session.addFrame(), () => true],
  frameRemove: ["Remove this frame", ({ session }) => session.removeFrame(), ({ session }) => session.frames.length > 1]
}

export const IN_NODE = ["undo", "redo", GAP, "mirror", "hide", GAP, "input", "clear", "text", "open"]
export const IN_DIALOG = ["undo", "redo", GAP, "mirror", "hide", GAP, "add", "remove", "copy", "paste", GAP, "input", "clear", GAP,
  "fit"]
export const OF_FRAMES = ["before", "after", GAP, "frameAdd", "frameRemove"]

/** A bar of buttons for an editor: {element, remove}. */
export function toolbar(names, editor) {
  const element = document.createElement("div")
  element.className = "pgpis-pose-bar"
  const buttons = []
  for (const name of names) {
    if (name === GAP) {
      element.appendChild(document.createElement("span")).className = "pgpis-pose-gap"
      continue
    }
    const [says, does, can] = ACTIONS[name], button = element.appendChild(document.createElement("button"))
    Object.assign(button, { type: "button", title: says, className: "pgpis-pose-button", innerHTML: icon(name) })
    button.setAttribute("aria-label", says)
    button.dataset.action = name
    button.addEventListener("click", (event) => {
      event.stopPropagation()
      does(editor)
      editor.view?.keys.focus({ preventScroll: true })
    })
    buttons.push([button, can])
  }
  for (const kind of ["pointerdown", "pointerup", "dblclick"]) element.addEventListener(kind, (event) => event.stopPropagation())
  const update = () => { for (const [button, can] of buttons) button.disabled = !can(editor) }
  const remove = editor.session.subscribe(update)
  update()
  return { element, remove }
}

function icon(name) {
  return `<svg viewBox="0 0 16 16" width="16" height="16" fill="none" stroke="currentColor" stroke-width="1.3" `
    + `stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${ICONS[name]}</svg>`
}
