"use strict";
/* Photographs: with the camera in a dialog, or with the phone's own camera where the browser allows no other. */

/** Let the user take photos; each is passed to `take` as a file. */
function openCamera(take) {
  // Browsers allow cameras only on this machine and on addresses with https.
  if (!navigator.mediaDevices?.getUserMedia) { byId("capture").click(); return; }
  const dialog = byId("camera"), video = byId("video"), problem = byId("camera-problem"), shoot = byId("shoot");
  let stream = null;
  problem.hidden = true;
  shoot.disabled = true;
  dialog.showModal();

  const stop = () => { for (const track of stream?.getTracks() ?? []) track.stop(); video.srcObject = null; };
  dialog.addEventListener("close", stop, { once: true });
  byId("close-camera").onclick = () => dialog.close();
  shoot.onclick = async () => {
    const canvas = element("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
    const time = new Date().toTimeString().slice(0, 8);
    dialog.close();
    take([new File([blob], `photo ${time}.jpg`, { type: "image/jpeg" })]);
  };
  navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } }).then(
    async (opened) => {
      stream = opened;
      if (!dialog.open) { stop(); return; }
      video.srcObject = stream;
      await video.play();
      shoot.disabled = false;
      shoot.focus();
    },
    (error) => {
      problem.textContent = error.name === "NotAllowedError"
        ? "The browser does not allow the camera for this page." : "No camera was found.";
      problem.hidden = false;
    },
  );
}
