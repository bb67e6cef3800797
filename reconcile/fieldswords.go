package reconcile

// Words are what the class means for whoever changes a field of it.
func (c Class) Words() string {
	switch c {
	case ClassNone:
		return "holds at once"
	case ClassMetadata:
		return "holds at once; it concerns no guest"
	case ClassLive:
		return "is made on the running machine"
	case ClassNextBoot:
		return "holds from the guest's next start on"
	case ClassRestart:
		return "needs a new QEMU process: it stays pending until the machine is restarted, or is made with --allow-restart"
	case ClassRecreate:
		return "makes it another object"
	case ClassDataLoss:
		return "would lose data: it is made only on an explicit word"
	default:
		return string(c)
	}
}

// Words are how a field's present value is found out.
func (s Seen) Words() string {
	switch s {
	case SeenQMP:
		return "asked of the running QEMU"
	case SeenLaunch:
		return "QEMU cannot tell it; the record of its launch stands for it"
	case SeenController:
		return "it concerns no process; what was applied is remembered"
	case SeenImage:
		return "asked of the image"
	case SeenSeed:
		return "told by the record of the seed that the guest was given"
	default:
		return string(s)
	}
}
