// What can be undone. States are never changed once they are here.

/** A stack of states. merge: changes of one kind within this time, in ms, are undone together. */
export class History {
  constructor(state, { limit = 200, merge = 700 } = {}) {
    Object.assign(this, { state, limit, merge, past: [], future: [], kind: null, last: -Infinity })
  }

  /** The next state. kind: what was done, for changes that belong together, such as one arrow key held; time: now, in ms. */
  push(state, kind = null, time = Date.now()) {
    if (kind === null || kind !== this.kind || time - this.last > this.merge) {
      this.past.push(this.state)
      if (this.past.length > this.limit) this.past.shift()
    }
    Object.assign(this, { state, kind, last: time, future: [] })
    return state
  }

  get canUndo() { return this.past.length > 0 }
  get canRedo() { return this.future.length > 0 }

  undo() { return this.#step(this.past, this.future) }
  redo() { return this.#step(this.future, this.past) }

  #step(from, to) {
    if (from.length) {
      to.push(this.state)
      this.state = from.pop()
      this.kind = null
    }
    return this.state
  }
}
