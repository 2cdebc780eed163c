// Thumbnails of the library's poses with a search, for Pose Library and Pose Mannequin; own files as words behind them.
const MOST_OWN = 300   // files that are shown; the search narrows them
let data = null

function loaded() {
  data ??= fetch(new URL("./poses.json", import.meta.url)).then((answer) => {
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`)
    return answer.json()
  }).catch((error) => {
    data = null
    throw error
  })
  return data
}

const split = (text) => text.toLowerCase().split(/[\s,]+/).filter(Boolean)

// Whether every word of a search begins a word of name, group or words, as pgpis_models/body/library.py has it.
export function answers(pose, search) {
  const own = split(`${pose.name} ${pose.group} ${pose.words}`)
  return split(search).every((part) => own.some((word) => word.startsWith(part)))
}

const STYLES = {
  all: "display:flex;flex-direction:column;gap:4px;width:100%;height:100%;min-height:0;box-sizing:border-box",
  search: "flex:none;font-size:12px;padding:3px 8px;border-radius:4px;border:1px solid #8886;background:#8882;color:inherit",
  grid: "flex:1;min-height:240px;contain:size;overflow-y:auto;display:grid;gap:3px;align-content:start;" +   // else a node grows
    "grid-auto-rows:max-content;grid-template-columns:repeat(auto-fill,minmax(48px,1fr))",   // else rows shrink to fit in
  cell: "padding:0;border:2px solid transparent;border-radius:4px;background:#e4e4e7;cursor:pointer;display:flex;" +
    "justify-content:center;overflow:hidden",
  own: "grid-column:1/-1;padding:3px 6px;border:2px solid transparent;border-radius:4px;background:#8882;color:inherit;" +
    "font-size:12px;text-align:left;cursor:pointer;overflow-wrap:anywhere",
  said: "grid-column:1/-1;font-size:12px;padding:8px;opacity:.8"
}

// pick: called with the pose that was clicked. chosen: gives the name of the one to mark. own: gives the names of own files.
export function gallery(pick, chosen = () => null, own = () => []) {
  const [element, search, grid] = ["div", "input", "div"].map((tag) => document.createElement(tag))
  element.className = "pgpis-gallery"
  element.style.cssText = STYLES.all
  element.dataset.captureWheel = "true"
  search.type = "search"
  search.placeholder = "search poses: sit, dance, back view ..."
  search.style.cssText = STYLES.search
  grid.style.cssText = STYLES.grid
  grid.tabIndex = 0
  element.append(search, grid)
  const say = (text) => {
    const said = document.createElement("div")
    said.style.cssText = STYLES.said
    said.textContent = text
    grid.replaceChildren(said)
  }
  const show = async () => {
    let found
    try {
      found = await loaded()
    } catch (error) {
      return say(`The thumbnails cannot be loaded (${error.message}); the poses can be chosen by name.`)
    }
    const { poses, cell: [width, height], columns } = found
    const wanted = ({ pose }) => answers(pose, search.value)
    const cells = poses.map((pose, number) => ({ pose, number })).filter(wanted)
    const files = own().map((name) => ({ pose: { name, group: "own", words: name.replace(/[/_.-]/g, " ") } })).filter(wanted)
      .slice(0, MOST_OWN)
    if (!cells.length && !files.length) return say("No pose answers to these words.")
    const buttons = [...cells, ...files].map(({ pose, number }) => {
      const button = document.createElement("button"), picture = document.createElement("span")
      button.title = pose.name
      button.style.cssText = number === undefined ? STYLES.own : STYLES.cell
      if (pose.name === chosen()) button.style.borderColor = "#2b6fd9"
      button.addEventListener("click", () => {
        pick(pose)
        for (const one of grid.children) one.style.borderColor = "transparent"
        button.style.borderColor = "#2b6fd9"
      })
      if (number === undefined) {
        button.textContent = pose.name
        return button
      }
      const sprite = new URL("./thumbnails.png", import.meta.url), row = Math.floor(number / columns)
      picture.style.cssText = `flex:none;width:${width}px;height:${height}px;` +
        `background:url("${sprite}") -${number % columns * width}px -${row * height}px`
      button.append(picture)
      return button
    })
    grid.replaceChildren(...buttons)
    if (files.some(({ pose }) => pose.name === chosen())) grid.scrollTop = grid.scrollHeight
  }
  search.addEventListener("input", show)
  for (const kind of ["pointerdown", "keydown", "wheel"]) element.addEventListener(kind, (event) => event.stopPropagation())
  show()
  return { element, show }
}
