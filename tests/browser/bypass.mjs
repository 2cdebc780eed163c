// Ctrl+B at Pose Transfer: where the sampler's model, positive and latent come from in what would be queued, before and after.
export default async function act(page) {
  const fed = () => page.evaluate(async () => {
    const { output } = await window.app.graphToPrompt()
    const [sampler] = Object.values(output).filter((one) => one.class_type === "KSampler")
    const of = (link) => link ? [output[link[0]].class_type, link[1]] : null
    return { model: of(sampler.inputs.model), positive: of(sampler.inputs.positive), latent: of(sampler.inputs.latent_image) }
  })
  const before = await fed()
  await page.evaluate(() => {
    const node = window.app.graph._nodes.find((one) => one.type === "PGPISPoseTransfer")
    window.app.canvas.deselectAll?.()
    window.app.canvas.selectNode(node)
    window.app.canvas.canvas.focus()
  })
  await page.keyboard.press("Control+b")
  await page.waitForFunction(() => window.app.graph._nodes.find((one) => one.type === "PGPISPoseTransfer").mode === 4)
  return { before, after: await fed() }
}
