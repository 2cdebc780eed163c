// Loads workflows in ComfyUI's own frontend and writes down what it makes of them.
//
// node driver.mjs JOB.json with
//   {url, browser, playwright, report, workflows: [{name, workflow, drop, blueprint, queue, width, screenshot, module}], searches:
//    [words], modern: [{name, workflow, width, screenshot}]}
// drop: {node, name, base64}, a file dropped onto that node. blueprint: {name, inputs, values}, an installed subgraph that is
// added, see addBlueprint. queue: press Run and wait for the end. width: of the screenshot in pixels. screenshot: path or null. module: path of a module
// whose default export is given (page, {load, execute}) once the workflow is loaded, or nothing; what it returns is `acted`.
// The report: {version, searches: {words: [what the search of nodes lists, best first]}, workflows: [{name, missing, dialog, alerts, nodes: [{id, type, title, widgets, box, least}], groups: [{title,
//   box}], links, api, saved, execution, error, images, acted}], modern: [{name, boxes: [{id, title, box}]}]}; boxes are
// [x, y, width, height] in canvas units. modern: workflows in the view that draws nodes as parts of the page (Nodes 2.0), where
// the frontend has it; the boxes are those of what is shown.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const { chromium } = await import(pathToFileURL(join(job.playwright, 'index.mjs')).href)
const SHOWN = ['PGPISDemoPicture', 'PreviewImage', 'SaveImage'] // nodes that show pictures once they ran
const SETTINGS = {
  'Comfy.TutorialCompleted': true, 'Comfy.Workflow.Persist': false, 'Comfy.Minimap.Visible': false,
  'Comfy.Release.Status': 'skipped', 'Comfy.Graph.CanvasInfo': false, 'Comfy.Workflow.ShowMissingModelsWarning': false,
  'Comfy.NodeBadge.NodeSourceBadgeMode': 'None', 'Comfy.NodeBadge.NodeIdBadgeMode': 'None',
}
const RUN = 'button[data-testid="queue-button"], [data-testid="queue-button"] button'
const PATIENCE = 300000 // ms for the page to load; a run may take longer, pictures should not
const RUN_PATIENCE = 900000, PICTURE_PATIENCE = 60000, SEARCHED = 800, SETTLED = 700
// Room for what the frontend lays over the canvas: sidebar, tabs and menu, buttons below.
const LEFT = 120, TOP = 130, RIGHT = 60, BOTTOM = 130, AROUND = 24

// --- in the page ---------------------------------------------------------------------------------------------

async function load([workflow, name]) {
  await window.app.loadGraphData(workflow, true, true, name)
  await new Promise(done => setTimeout(done, 500))
}

async function describe() { // ids of nodes are strings in frontends of 2026
  const app = window.app, types = window.LiteGraph.registered_node_types
  const nodes = app.graph._nodes.map(node => {
    const box = node.getBounding ? node.getBounding() : [node.pos[0], node.pos[1] - 30, node.size[0], node.size[1] + 30]
    return { id: +node.id, type: node.type, title: node.title, widgets: (node.widgets ?? []).map(w => [w.name, w.value]),
             box: Array.from(box), least: node.computeSize ? Array.from(node.computeSize()) : null }
  })
  const dialogs = [...document.querySelectorAll('[role=dialog]')].map(e => e.innerText)
  return {
    missing: app.graph._nodes.map(n => n.type).filter(t => !types[t] && t !== 'MarkdownNote' && t !== 'Note'),
    dialog: dialogs.join('\n'), alerts: [...document.querySelectorAll('.p-toast-message')].map(e => e.innerText), nodes,
    groups: app.graph._groups.map(g => ({ title: g.title, box: [g.pos[0], g.pos[1], g.size[0], g.size[1]] })),
    links: [...app.graph.links.values()].length,
    api: (await app.graphToPrompt()).output,
    saved: app.graph.serialize(),
  }
}

// Listens for the end of what is about to be queued; `ended` waits for it.
function listen() {
  const app = window.app, kinds = ['execution_success', 'execution_error', 'execution_interrupted']
  app.lastNodeErrors = null
  window.ending = new Promise(done => {
    const listeners = kinds.map(kind => [kind, event => finish({ execution: kind, error: event.detail ?? null })])
    const refusal = setInterval(() => {
      if (Object.keys(app.lastNodeErrors ?? {}).length) finish({ execution: 'refused', error: app.lastNodeErrors })
    }, 200)
    const finish = result => {
      clearInterval(refusal)
      listeners.forEach(([kind, on]) => app.api.removeEventListener(kind, on))
      done(result.execution === 'execution_success' ? { ...result, error: null } : result)
    }
    listeners.forEach(([kind, on]) => app.api.addEventListener(kind, on))
  })
}

const ended = patience => Promise.race([window.ending,
  new Promise(done => setTimeout(() => done({ execution: 'timeout', error: null }), patience))])

// As the mouse does that carries a file onto a node.
async function drop({ node: id, name, base64 }) {
  const app = window.app, node = app.graph.getNodeById(id), canvas = app.canvas.canvas, before = node.widgets[0].value
  const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0)), dataTransfer = new DataTransfer()
  dataTransfer.items.add(new File([bytes], name, { type: 'image/png' }))
  app.canvas.centerOnNode(node)
  app.canvas.draw(true, true)
  const { scale, offset } = app.canvas.ds, box = canvas.getBoundingClientRect()
  const clientX = box.left + (node.pos[0] + node.size[0] / 2 + offset[0]) * scale
  const clientY = box.top + (node.pos[1] + node.size[1] - 20 + offset[1]) * scale
  for (const type of ['dragover', 'drop']) {
    canvas.dispatchEvent(new DragEvent(type, { dataTransfer, clientX, clientY, bubbles: true, cancelable: true }))
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
  }
  for (let i = 0; i < 100 && node.widgets[0].value === before; i++) await new Promise(done => setTimeout(done, 100))
}

// As a choice in the list of nodes does. Before each input a chain of nodes, [[type, {widget: value}]], and Save Image behind.
async function addBlueprint({ name, inputs, values }) {
  const app = window.app, { $pinia } = document.getElementById('vue-app').__vue_app__.config.globalProperties
  const set = (node, chosen) => Object.entries(chosen)
    .forEach(([key, value]) => { node.widgets.find(one => one.name === key).value = value })
  const make = (type, chosen, pos) => {
    const node = window.LiteGraph.createNode(type)
    node.pos = pos
    app.graph.add(node)
    set(node, chosen)
    return node
  }
  const store = $pinia._s.get('subgraph'), named = () => store.subgraphBlueprints.find(one => one.display_name === name)
  for (let i = 0; i < 100 && !named(); i++) await new Promise(done => setTimeout(done, 100))   // the page loads them last
  const blueprint = store.getBlueprint(named().name)
  const items = { nodes: blueprint.nodes, subgraphs: blueprint.definitions.subgraphs }
  const [node] = app.canvas._deserializeItems(items, { position: [1200, 40] }).nodes.values()
  Object.entries(inputs).forEach(([input, chain], row) => {
    const [last] = chain.map(([type, chosen], column) => make(type, chosen, [400 * column, 40 + 500 * row]))
      .reduce(([before], after) => { before?.connect(0, after, 0); return [after] }, [])
    last.connect(0, node, node.inputs.findIndex(one => one.name === input))
  })
  set(node, values)
  node.connect(0, make('SaveImage', { filename_prefix: 'blueprint' }, [1600, 40]), 0)
}

const images = () => window.app.graph._nodes.filter(n => n.imgs?.length)
  .map(n => ({ id: +n.id, sizes: n.imgs.map(i => [i.naturalWidth, i.naturalHeight]) }))

const loaded = ids => window.app.graph._nodes.filter(n => ids.includes(+n.id))
  .every(n => n.imgs?.length && n.imgs.every(i => i.complete && i.naturalWidth > 0))

async function frame([left, top, scale, x, y]) {
  const canvas = window.app.canvas
  canvas.deselectAll?.()
  canvas.ds.scale = scale
  canvas.ds.offset[0] = left / scale - x
  canvas.ds.offset[1] = top / scale - y
  for (let i = 0; i < 3; i++) {
    canvas.draw(true, true)
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
  }
  await new Promise(done => setTimeout(done, 400))
}

// --- outside -------------------------------------------------------------------------------------------------

function bounds(seen) {
  const boxes = [...seen.nodes, ...seen.groups].map(one => one.box)
  const x = Math.min(...boxes.map(b => b[0])), y = Math.min(...boxes.map(b => b[1]))
  return [x, y, Math.max(...boxes.map(b => b[0] + b[2])) - x, Math.max(...boxes.map(b => b[1] + b[3])) - y]
}

// Puts the whole graph into view, `width` pixels wide; the part of the page that it takes. Nodes out of sight load no
// pictures.
async function show(page, seen, width) {
  const [x, y, w, h] = bounds(seen)
  const scale = (width - 2 * AROUND) / w, height = Math.round(h * scale + 2 * AROUND)
  await page.setViewportSize({ width: width + LEFT + RIGHT, height: height + TOP + BOTTOM })
  await page.waitForTimeout(500)
  await page.evaluate(frame, [LEFT + AROUND, TOP + AROUND, scale, x, y])
  return { x: LEFT, y: TOP, width, height }
}

// What the search for nodes lists for each of the words, best first.
async function search(page, words) {
  const found = {}, box = page.locator('[role=dialog] input, .comfy-vue-node-search-container input').first()
  await page.evaluate(load, [{ nodes: [], links: [], groups: [], version: 0.4, last_node_id: 0, last_link_id: 0 }, 'empty'])
  await page.evaluate(() => window.app.extensionManager.command.execute('Workspace.SearchBox.Toggle'))
  for (const one of words) {
    await box.fill(one)
    await page.waitForTimeout(SEARCHED)
    found[one] = await page.evaluate(() => [...document.querySelectorAll('[role=option]')].map(e => e.innerText))
  }
  await page.keyboard.press('Escape')
  await page.keyboard.press('Escape')
  return found
}

// Presses Run; how it ended.
async function run(page) {
  await page.evaluate(listen)
  await page.locator(RUN).first().click()
  return page.evaluate(ended, RUN_PATIENCE)
}

// A page of the frontend. Settings are answered here and never reach the server, which may be somebody's own.
async function opened(browser, chosen) {
  const context = await browser.newContext({ viewport: { width: 1600, height: 1000 }, deviceScaleFactor: 1 })
  await context.route(url => url.hostname !== new URL(job.url).hostname, route => route.abort())
  await context.route(url => /^\/(api\/)?settings(\/|$)/.test(url.pathname), async route => {
    if (route.request().method() !== 'GET') return route.fulfill({ status: 200, body: '' })
    const answer = await route.fetch()
    return route.fulfill({ json: { ...await answer.json(), ...chosen } })
  })
  const page = await context.newPage()
  page.setDefaultTimeout(PATIENCE)
  page.on('console', said => said.type() === 'error' && console.error(said.text().slice(0, 500)))   // read where this fails
  await page.goto(job.url)
  await page.addStyleTag({ content: '.p-toast { opacity: 0 !important }' }) // would cover the graph in its picture
  await page.waitForFunction(() => window.app?.vueAppReady === true && !!window.LiteGraph?.registered_node_types.KSampler)
  return page
}

const parts = () => {
  const { scale, offset } = window.app.canvas.ds, origin = window.app.canvas.canvas.getBoundingClientRect()
  return [...document.querySelectorAll('[data-node-id]')].map(element => {
    const { left, top, width, height } = element.getBoundingClientRect(), id = +element.dataset.nodeId
    const x = (left - origin.left) / scale - offset[0], y = (top - origin.top) / scale - offset[1]
    return { id, title: window.app.graph.getNodeById(id)?.title ?? '', box: [x, y, width / scale, height / scale] }
  }).filter(one => one.box[2] > 0 && one.title)
}

// Workflows in the view that draws nodes as parts of the page.
async function modern(browser, workflows) {
  const page = await opened(browser, { ...SETTINGS, 'Comfy.VueNodes.Enabled': true }), found = []
  for (const { name, workflow, width, screenshot: path } of workflows) {
    await page.evaluate(load, [workflow, name])
    const clip = await show(page, await page.evaluate(describe), width ?? 1600)
    await page.waitForTimeout(SETTLED)
    found.push({ name, boxes: await page.evaluate(parts) })
    if (path) await page.screenshot({ path, clip, timeout: PATIENCE })
  }
  return found
}

const report = { version: (await (await fetch(`${job.url}/system_stats`)).json()).system, workflows: [], searches: {},
                 modern: [] }
const browser = await chromium.launch({ executablePath: job.browser, args: ['--no-sandbox', '--disable-dev-shm-usage'] })
try {
  if (job.modern?.length) report.modern = await modern(browser, job.modern)
  const page = await opened(browser, SETTINGS)
  if (job.searches?.length) report.searches = await search(page, job.searches)
  for (const { name, workflow, drop: file, blueprint, queue, width, screenshot: path, module } of job.workflows) {
    await page.evaluate(load, [workflow, name])
    if (file) await page.evaluate(drop, file)
    if (blueprint) await page.evaluate(addBlueprint, blueprint)
    const seen = { name, execution: null, error: null, ...await page.evaluate(describe) }
    if (queue) {
      // Of nodes whose result is kept from the workflow before, the host tells no pictures.
      const body = JSON.stringify({ free_memory: true })
      await fetch(`${job.url}/free`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body })
      await page.waitForTimeout(2000)
      Object.assign(seen, await run(page))
      await page.waitForTimeout(500)
    }
    if (module) {
      const { default: act } = await import(pathToFileURL(module).href)
      seen.acted = await act(page, { load: (graph) => page.evaluate(load, [graph, name]),
                                     execute: () => run(page) })
    }
    const clip = await show(page, seen, width ?? 1600)
    const ids = seen.nodes.filter(n => n.type === 'LoadImage' || (queue && SHOWN.includes(n.type)))
      .map(n => n.id)
    await page.waitForFunction(loaded, ids, { timeout: PICTURE_PATIENCE, polling: 500 }).catch(() => {})
    seen.images = await page.evaluate(images)
    if (path) {
      await show(page, seen, width ?? 1600)
      await page.screenshot({ path, clip, timeout: PATIENCE })
    }
    report.workflows.push(seen)
  }
} finally {
  await browser.close()
}
writeFileSync(job.report, JSON.stringify(report))
