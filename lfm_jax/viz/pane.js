"use strict";
// A canvas with skeletons on it. Coordinates: x right, y up, z towards the reader;
// without z the pane is flat. Dragging turns them (or moves a flat pane), the wheel
// zooms, a double click resets. The projection is orthographic, as the model's camera.
//
// A layer: points [x, y(, z)] or null, edges [a, b], names; colour(i) of a joint,
// hollow(i) where a joint is to be drawn as a ring, width of a bone in pixels.
// The joints of the first layer, in pixels, are in the canvas's data-joints.

// Turns about y, then about x, in radians: "camera" shows what the 2D input shows.
const SIDES = {
  camera: [0, 0], oblique: [-0.62, 0.3], side: [-Math.PI / 2, 0], above: [0, Math.PI / 2],
};

class Pane {
  constructor(canvas, look) {
    Object.assign(this, { side: "oblique", hovered: null, onhover: () => {} }, look);
    this.canvas = canvas;
    this.layers = [];
    this.radius = 1;
    this.tip = canvas.parentElement.appendChild(document.createElement("div"));
    this.tip.className = "tip";
    this.listen();
    new ResizeObserver(() => requestAnimationFrame(() => this.draw())).observe(canvas);
    this.reset();
  }

  // Shows layers; `radius` is the distance that reaches from the middle to the edge.
  show(layers, radius) {
    Object.assign(this, { layers, radius });
    this.draw();
  }

  reset(side) {
    this.side = side || this.side;
    [this.yaw, this.pitch] = this.flat ? SIDES.camera : SIDES[this.side];
    Object.assign(this, { zoom: 1, moved: [0, 0] });
    this.draw();
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", (e) => canvas.setPointerCapture(e.pointerId));
    canvas.addEventListener("pointermove", (e) => {
      if (e.buttons) this.drag(e.movementX, e.movementY);
      else this.hover(this.nearest(e.offsetX, e.offsetY));
    });
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      const turned = Math.max(-100, Math.min(100, e.deltaY));
      this.zoom = Math.max(0.2, Math.min(40, this.zoom * Math.exp(-0.002 * turned)));
      this.draw();
    }, { passive: false });
  }

  drag(x, y) {
    if (this.flat) {
      this.moved = [this.moved[0] + x, this.moved[1] + y];
    } else {
      this.yaw += 0.01 * x;
      this.pitch = Math.max(-1.6, Math.min(1.6, this.pitch + 0.01 * y));
    }
    this.hover(null);
    this.draw();
  }

  turned([x, y, z = 0]) {
    const [c, s] = [Math.cos(this.yaw), Math.sin(this.yaw)];
    const [d, t] = [Math.cos(this.pitch), Math.sin(this.pitch)];
    const near = -s * x + c * z;
    return [c * x + s * z, d * y - t * near, t * y + d * near];
  }

  // Where a point is drawn: pixels from the left and from above, and how near it is.
  place(point) {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const [x, y, near] = this.turned(point);
    const unit = (0.46 * Math.min(w, h) * this.zoom) / this.radius;
    return [w / 2 + this.moved[0] + unit * x, h / 2 + this.moved[1] - unit * y,
      near / this.radius];
  }

  nearest(x, y) {
    const away = (p) => (p ? Math.hypot(p[0] - x, p[1] - y) : Infinity);
    let best = null;
    for (const [i, p] of (this.drawn || []).entries())
      if (away(p) < (best === null ? 16 : away(this.drawn[best]))) best = i;
    return best;
  }

  hover(index) {
    if (index === this.hovered) return;
    this.mark(index);
    this.onhover(index);
  }

  mark(index) {
    this.hovered = index;
    this.draw();
  }

  draw() {
    const { canvas, layers } = this;
    const { clientWidth: w, clientHeight: h } = canvas;
    const fine = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(w * fine) || canvas.height !== Math.round(h * fine))
      [canvas.width, canvas.height] = [Math.round(w * fine), Math.round(h * fine)];
    const pen = (this.pen = canvas.getContext("2d"));
    pen.setTransform(fine, 0, 0, fine, 0, 0);
    pen.clearRect(0, 0, w, h);
    pen.lineCap = "round";
    const strokes = [];
    for (const layer of layers) {
      const places = layer.points.map((p) => p && this.place(p));
      if (layer === layers[0]) this.drawn = places;
      this.bones(layer, places, strokes);
      this.joints(layer, places, strokes);
    }
    strokes.sort((a, b) => a.near - b.near);
    for (const stroke of strokes) stroke.paint();
    if (!this.flat) this.axes(h);
    const drawn = (this.drawn || []).map((p) => p && [p[0].toFixed(1), p[1].toFixed(1)]);
    canvas.dataset.joints = JSON.stringify(drawn.map((p) => p && p.map(Number)));
    this.tell(layers[0]);
  }

  bones(layer, places, strokes) {
    const pen = this.pen;
    for (const [a, b] of layer.edges) {
      const [p, q] = [places[a], places[b]];
      if (!p || !q) continue;
      const near = (p[2] + q[2]) / 2;
      strokes.push({ near: near - 1e-3, paint: () => {
        const shade = pen.createLinearGradient(p[0], p[1], q[0], q[1]);
        shade.addColorStop(0, layer.colour(a));
        shade.addColorStop(1, layer.colour(b));
        pen.strokeStyle = shade;
        pen.globalAlpha = 0.8;
        pen.lineWidth = layer.width * this.closeness(near);
        pen.beginPath();
        pen.moveTo(p[0], p[1]);
        pen.lineTo(q[0], q[1]);
        pen.stroke();
        pen.globalAlpha = 1;
      } });
    }
  }

  joints(layer, places, strokes) {
    const pen = this.pen;
    places.forEach((p, i) => {
      if (!p) return;
      strokes.push({ near: p[2], paint: () => {
        const marked = i === this.hovered && layer === this.layers[0];
        const size = 1.35 * layer.width * this.closeness(p[2]) + (marked ? 3 : 0);
        pen.beginPath();
        pen.arc(p[0], p[1], size, 0, 2 * Math.PI);
        pen.fillStyle = layer.hollow(i) ? this.ground : layer.colour(i);
        pen.fill();
        pen.strokeStyle = marked ? this.ink : layer.hollow(i) ? layer.colour(i) : this.ground;
        pen.lineWidth = marked || layer.hollow(i) ? 1.8 : 1;
        pen.stroke();
      } });
    });
  }

  // What is nearer is drawn larger: an orthographic picture has no other sign of it.
  closeness(near) {
    return Math.max(0.6, Math.min(1.4, 1 + 0.35 * near));
  }

  axes(h) {
    const pen = this.pen, [x, y] = [34, h - 34];
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (const [name, axis] of [["x", [1, 0, 0]], ["y", [0, -1, 0]], ["z", [0, 0, -1]]]) {
      const [right, up] = this.turned(axis);
      pen.strokeStyle = pen.fillStyle = this.soft;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(x + 17 * right, y - 17 * up);
      pen.stroke();
      if (Math.hypot(right, up) > 0.2) pen.fillText(name, x + 26 * right, y - 26 * up);
    }
  }

  tell(layer) {
    const place = this.hovered === null ? null : (this.drawn || [])[this.hovered];
    this.tip.hidden = !place;
    if (!place) return;
    this.tip.textContent = layer.names[this.hovered];
    const { offsetWidth: w, offsetHeight: h } = this.tip;
    const left = place[0] + 14 + w > this.canvas.clientWidth ? -14 - w : 14;
    this.tip.style.left = Math.max(0, this.canvas.offsetLeft + place[0] + left) + "px";
    this.tip.style.top = this.canvas.offsetTop + Math.max(0, place[1] - h / 2) + "px";
  }
}
