// Loads workflows in ComfyUI's own frontend and writes down what it makes of them.
//
// node driver.mjs JOB.json with
//   {url, browser, playwright, report, workflows: [{name, workflow, queue, width, screenshot, module}], searches: [words]}
// queue: run it and wait for its end. width: of the screenshot in pixels. screenshot: path or null. module: path of a module
// whose default export is given (page, {load, execute}) once the workflow is loaded, or nothing; what it returns is `acted`.
// The report: {version, searches: {words: [what the search of nodes lists, best first]}, workflows: [{name, missing, dialog, alerts, nodes: [{id, type, title, widgets, box, least}], groups: [{title,
//   box}], links, api, saved, execution, error, images, acted}]}; boxes are [x, y, width, height] in canvas units.
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
const PATIENCE = 300000 // ms for the page to load; a run may take longer, pictures should not
const RUN_PATIENCE = 900000, PICTURE_PATIENCE = 60000, SEARCHED = 800
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

async function execute(patience) {
  const app = window.app, kinds = ['execution_success', 'execution_error', 'execution_interrupted']
  let finish
  const ended = new Promise(done => { finish = done })
  const listeners = kinds.map(kind => [kind, event => finish({ execution: kind, error: event.detail ?? null })])
  listeners.forEach(([kind, on]) => app.api.addEventListener(kind, on))
  const late = setTimeout(() => finish({ execution: 'timeout', error: null }), patience)
  await app.queuePrompt(0, 1)
  if (Object.keys(app.lastNodeErrors ?? {}).length) finish({ execution: 'refused', error: app.lastNodeErrors })
  const result = await ended
  clearTimeout(late)
  listeners.forEach(([kind, on]) => app.api.removeEventListener(kind, on))
  return result.execution === 'execution_success' ? { execution: result.execution, error: null } : result
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

// What the search that a double click on the canvas opens lists for each of the words, best first.
async function search(page, words) {
  const found = {}, box = page.locator('[role=dialog] input, .comfy-vue-node-search-box-container input').first()
  await page.evaluate(load, [{ nodes: [], links: [], groups: [], version: 0.4, last_node_id: 0, last_link_id: 0 }, 'empty'])
  for (let tries = 0; tries < 5 && !await box.isVisible(); tries++) { // a page that is busy takes two clicks for two
    await page.mouse.dblclick(800, 600)
    await page.waitForTimeout(2 * SEARCHED)
  }
  for (const one of words) {
    await box.fill(one)
    await page.waitForTimeout(SEARCHED)
    found[one] = await page.evaluate(() => [...document.querySelectorAll('[role=option]')].map(e => e.innerText))
  }
  await page.keyboard.press('Escape')
  await page.keyboard.press('Escape')
  return found
}

// Settings are answered here and never reach the server, which may be somebody's own.
async function settings(route) {
  if (route.request().method() !== 'GET') return route.fulfill({ status: 200, body: '' })
  const answer = await route.fetch()
  return route.fulfill({ json: { ...await answer.json(), ...SETTINGS } })
}

const report = { version: (await (await fetch(`${job.url}/system_stats`)).json()).system, workflows: [], searches: {} }
const browser = await chromium.launch({ executablePath: job.browser, args: ['--no-sandbox', '--disable-dev-shm-usage'] })
try {
  const context = await browser.newContext({ viewport: { width: 1600, height: 1000 }, deviceScaleFactor: 1 })
  await context.route(url => url.hostname !== new URL(job.url).hostname, route => route.abort())
  await context.route(url => /^\/(api\/)?settings(\/|$)/.test(url.pathname), settings)
  const page = await context.newPage()
  page.setDefaultTimeout(PATIENCE)
  await page.goto(job.url)
  await page.addStyleTag({ content: '.p-toast { opacity: 0 !important }' }) // would cover the graph in its picture
  await page.waitForFunction(() => window.app?.vueAppReady === true && !!window.LiteGraph?.registered_node_types.KSampler)
  if (job.searches?.length) report.searches = await search(page, job.searches)
  for (const { name, workflow, queue, width, screenshot: path, module } of job.workflows) {
    await page.evaluate(load, [workflow, name])
    const seen = { name, execution: null, error: null, ...await page.evaluate(describe) }
    if (queue) {
      // Of nodes whose result is kept from the workflow before, the host tells no pictures.
      const body = JSON.stringify({ free_memory: true })
      await fetch(`${job.url}/free`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body })
      await page.waitForTimeout(2000)
      Object.assign(seen, await page.evaluate(execute, RUN_PATIENCE))
      await page.waitForTimeout(500)
    }
    if (module) {
      const { default: act } = await import(pathToFileURL(module).href)
      seen.acted = await act(page, { load: (graph) => page.evaluate(load, [graph, name]),
                                     execute: () => page.evaluate(execute, RUN_PATIENCE) })
    }
    const clip = await show(page, seen, width ?? 1600)
    const ids = workflow.nodes.filter(n => n.type === 'LoadImage' || (queue && SHOWN.includes(n.type)))
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
