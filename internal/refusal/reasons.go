package refusal

import (
	"fmt"

	"joinery"
	"joinery/lorawan"
)

// voice is how the reader is spoken to.
type voice struct{ owner, device, allowed string }

var (
	toOwner    = voice{owner: "you", device: "your device", allowed: "you allowed"}
	toOperator = voice{owner: "its owner", device: "the device", allowed: "its owner allowed"}
)

// wording is everything that is said of one reason.
type wording struct {
	reason joinery.RefusalReason
	// means tells what happened, for every request of this reason; remedy what to
	// do about it. Both stand in docs/explain.md.
	means  string
	remedy string
	// what tells what happened in one sentence with the values.
	what func(x *joinery.Refusal, v voice) string
	// hint adds what the values give away; "" is nothing.
	hint func(x *joinery.Refusal) string
}

// wordings is every reason, in the order in which they are looked for.
var wordings = []wording{
	{
		joinery.RefusedUnreadable,
		"The request was no message of Backend Interfaces at all.",
		"See that the network posts TS002 messages as JSON to the interop address: JoinReq, RejoinReq, AppSKeyReq or HomeNSReq.",
		func(x *joinery.Refusal, _ voice) string {
			return "It sent no message that can be answered: " + x.Received.Problem
		},
		nil,
	},
	{
		joinery.RefusedProtocolVersion,
		"ProtocolVersion is none that this server speaks.",
		"Set the network's connection to this Join Server to Backend Interfaces 1.0 or 1.1.",
		func(x *joinery.Refusal, _ voice) string {
			return who(x) + " spoke a version of Backend Interfaces that this server does not know"
		},
		nil,
	},
	{
		joinery.RefusedMalformed,
		"A member of the message is missing, or is not what the specification says.",
		"Look at the version and the settings of the program that sends it; the member that is wrong is named.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s sent a malformed %s for %s: %s", who(x), message(x), v.device, x.Received.Problem)
		},
		nil,
	},
	{
		joinery.RefusedSenderNetID,
		"SenderID is not among the NetIDs of the peer whose certificate was shown.",
		"Set the network's NetID to the one that the operator entered for it, or have the operator add the other: 'joinctl peer change PEER --net-id NETID --add'.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("A peer asked for %s as network %s, which its certificate does not stand for", v.device, x.Received.NetID)
		},
		hintNetID,
	},
	{
		joinery.RefusedSenderNSID,
		"SenderNSID is not among the NSIDs of the peer whose certificate was shown.",
		"Have the operator add the NSID ('joinctl peer change PEER --nsid NSID --add'), or let any pass ('--ignore-nsid').",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("Network %s asked for %s as NSID %s, which its certificate does not stand for", x.Received.NetID, v.device, x.Received.NSID)
		},
		nil,
	},
	{
		joinery.RefusedSenderASID,
		"SenderID is not among the AS-IDs of the peer whose certificate was shown.",
		"Set the Application Server's AS-ID to the one that the operator entered for it, or have the operator add the other: 'joinctl peer change PEER --as-id AS-ID --add'.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("A peer asked for AppSKey of %s as Application Server %q, which its certificate does not stand for", v.device, x.Received.SenderID)
		},
		func(x *joinery.Refusal) string {
			if _, err := lorawan.ParseNetID(x.Received.SenderID); err == nil {
				return "That looks like a NetID: AppSKeyReq comes from an Application Server, under its AS-ID."
			}
			return ""
		},
	},
	{
		joinery.RefusedPeerRemoved,
		"The peer was removed or suspended while its request was on the way.",
		"Nothing, if that was meant; else 'joinctl peer change PEER --suspended=false', or add the peer again.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s was removed or suspended while it asked for %s", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedFrame,
		"PHYPayload is not a join-request of 23 bytes, or not a rejoin-request of type 0, 1 or 2.",
		"Look at the network: the frame was changed or wrapped on its way, as a relay does, or the message is of the wrong type.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s sent a %s for %s with a frame that is none: %s", who(x), message(x), v.device, x.Received.Problem)
		},
		nil,
	},
	{
		joinery.RefusedJoinEUI,
		"This server answers for no such JoinEUI.",
		"See what JoinEUI the device sends: 0000000000000000, a vendor's default or reversed bytes are usual mistakes. If it is right, the operator has to assign its range: 'joinctl range assign'.",
		func(x *joinery.Refusal, _ voice) string {
			return fmt.Sprintf("%s asked for device %s under JoinEUI %s, which this server does not answer for", who(x), x.Received.DevEUI, x.Received.JoinEUI)
		},
		nil,
	},
	{
		joinery.RefusedEUIMismatch,
		"The message and the frame in it name different devices or Join Servers.",
		"It is a fault of the network's software: DevEUI must be the frame's, ReceiverID the frame's JoinEUI.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s sent a %s for %s that contradicts its own frame: %s", who(x), message(x), v.device, x.Received.Problem)
		},
		nil,
	},
	{
		joinery.RefusedCFList,
		"The network's list of channels is of type F1, by which a Join Server tells devices to rekey. From a network it is refused for every device.",
		"Look at what sends it: RP002 has no list of that type, so no region's channels need it. If nobody at the network knows of it, somebody tries to lead devices away from you.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s with a CFList of type F1, which tells a device to rekey and which no network may send", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedOptNeg,
		"OptNeg in DLSettings and MACVersion contradict each other, so that device and network would derive different keys.",
		"It is a fault of the network's software, or of its device profile: OptNeg is set for LoRaWAN 1.1, and only then.",
		func(x *joinery.Refusal, v voice) string {
			set := "without OptNeg"
			if x.Received.OptNeg {
				set = "with OptNeg set"
			}
			return fmt.Sprintf("%s asked for %s as LoRaWAN %s %s", who(x), v.device, x.Received.MACVersion, set)
		},
		nil,
	},
	{
		joinery.RefusedFenced,
		"This server answers no joins until its operator confirms which database counts, as after a backup was restored.",
		"Nothing at the device: it may go on trying. The operator confirms with 'joinery restore confirm'.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s while this server answered no joins, because its operator had to confirm its database", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedUnknownDevice,
		"There is no such device here.",
		"Import it, or correct JoinEUI and DevEUI: 'joinctl device list --dev-eui DEVEUI' finds it under another JoinEUI. Compare with the label; EUIs are often entered with their bytes reversed.",
		func(x *joinery.Refusal, _ voice) string {
			return fmt.Sprintf("%s asked for device %s under JoinEUI %s, which is not here", who(x), x.Received.DevEUI, x.Received.JoinEUI)
		},
		nil,
	},
	{
		joinery.RefusedNotBound,
		"The device is here, and its owner has bound it to no network.",
		"If that network may have it: 'joinctl bind DEVICE --net-id NETID --as-id AS-ID'.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("Network %s tried to join %s; %s no network", x.Received.NetID, v.device, v.allowed)
		},
		nil,
	},
	{
		joinery.RefusedOtherNetwork,
		"The owner has bound the device to another network.",
		"If that network may have it instead: 'joinctl bind DEVICE --net-id NETID --as-id AS-ID'. If not, nothing: it got neither keys nor the news that the device exists.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("Network %s tried to join %s; %s %s only", x.Received.NetID, v.device, v.allowed, x.Decided.NetID)
		},
		hintNetID,
	},
	{
		joinery.RefusedNSIDMissing,
		"The owner has bound the device to one Network Server of the network, by NSID, and the one that asked said none of its own.",
		"Have the network speak Backend Interfaces 1.1 with its NSID, or the operator enter it for the peer ('joinctl peer change PEER --nsid NSID'): then it counts in 1.0, too. Or bind without NSID.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("Network %s tried to join %s without an NSID of its own; %s NSID %s only", x.Received.NetID, v.device, v.allowed, x.Decided.NSID)
		},
		func(x *joinery.Refusal) string {
			if x.Received.ProtocolVersion == "1.0" || x.Received.ProtocolVersion == "1.0.0" {
				return "It spoke Backend Interfaces 1.0, which knows no NSID (ChirpStack speaks nothing else)."
			}
			return ""
		},
	},
	{
		joinery.RefusedOtherNSID,
		"The network is right, and its Network Server is another one than the owner allowed.",
		"If that Network Server may have it: 'joinctl bind DEVICE' with its NSID, or with none for all of the network.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("Network Server %s of network %s tried to join %s; %s %s only", x.Received.NSID, x.Received.NetID, v.device, v.allowed, x.Decided.NSID)
		},
		nil,
	},
	{
		joinery.RefusedSuspended,
		"The device is suspended.",
		"'joinctl device resume DEVICE' ends that.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s, which was suspended", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedMoved,
		"The device was rekeyed: it derived new root keys inside its element and joined at another Join Server, which said so or whose owner did.",
		"Set the network's device to the new JoinEUI. If the device asks under the old one all the same, order it anew: 'joinctl rekey arm DEVEUI'; until that is confirmed, it is served here again.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s, which was rekeyed and joined at another Join Server", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedMACVersion,
		"The network asks for LoRaWAN 1.1, and the device is provisioned as 1.0.x.",
		"Correct the LoRaWAN version in the network's device profile, or import the device with the version that its firmware speaks.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s as LoRaWAN %s; it is provisioned as %s", who(x), v.device, x.Received.MACVersion, x.Decided.MACVersion)
		},
		nil,
	},
	{
		joinery.RefusedLapsed,
		"The service term of the device is over, and so are its days of grace. Joins are refused; sessions that run go on, and nothing else is kept from its owner.",
		"Extend it: 'joinctl service extend DEVICE --months 12 --reference ORDER'. If that takes credit which there is not, ask the operator for it. To leave, export, rekey, transfer and release work as before.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s, whose service ended on %s", who(x), v.device, x.Decided.ServiceEnd)
		},
		nil,
	},
	{
		joinery.RefusedAttestation,
		"The device has shown less of its element and firmware than its owner wants, what it showed has ended, or it rests on less than the owner wants. Joins and rejoins are refused; the session that it has goes on, and nothing else is kept from its owner.",
		"Have it attested: 'joinctl attest challenge DEVICE', then 'joinctl device attest DEVICE --evidence FILE'; 'joinctl attest show DEVICE' says what its results rest on. Or want less, of this device with 'joinctl attest rule DEVICE', of all with 'joinctl attest policy'. To leave, export, rekey, transfer and release work as before.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s, which was attested %s; %s wanted %s", who(x), v.device, x.Decided.AttestLevel, v.owner, x.Decided.AttestWanted)
		},
		nil,
	},
	{
		joinery.RefusedMIC,
		"The frame was not made with the device's root key, or it was damaged, or somebody made it up.",
		"Compare the root key in the device with the imported one: usual mistakes are AppKey and NwkKey swapped, reversed bytes, and the key of another device.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s brought %s of %s that was not made with its root key", who(x), frame(x), v.device)
		},
		hintRoot,
	},
	{
		joinery.RefusedNoSession,
		"A rejoin-request of type 0 or 2 speaks from a LoRaWAN 1.1 session, and the device has none here that it could speak from.",
		"Have the device join first, as LoRaWAN 1.1. After a join through a 1.0 network it cannot rejoin.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s brought %s of %s, which has no 1.1 session that it could speak from", who(x), frame(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedRejoinNetID,
		"A rejoin-request of type 0 or 2 names the network of its session, and that is not the device's home any more.",
		"Have the device join anew through the network to which it is bound now.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s brought %s of %s from a session in another network than %s, its home", who(x), frame(x), v.device, x.Decided.NetID)
		},
		nil,
	},
	{
		joinery.RefusedDevNonceUsed,
		"The device is provisioned below LoRaWAN 1.0.4, draws its DevNonces, and has used this one before.",
		"Once in a while that is chance: the next try has another. If every try has the same few, the device's random numbers repeat after each start, or somebody replays what was recorded. A device that counts instead has to be imported as 1.0.4. 'joinctl device reset-nonces DEVICE', by the operator, lets one join start anew.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s brought DevNonce %d of %s, which it had used before", who(x), x.Received.Count, v.device)
		},
		func(x *joinery.Refusal) string {
			if x.Received.Count < 16 {
				return "So low a value looks like a counter that starts anew: firmware that was flashed, or a reset that lost it."
			}
			return ""
		},
	},
	{
		joinery.RefusedDevNonceLow,
		"The device counts its DevNonces (LoRaWAN 1.0.4 and later), and this one is not above the last.",
		"Its counter was lost: by a reset, new firmware, an erased flash or a swapped element. See that the firmware keeps DevNonce over restarts; then 'joinctl device reset-nonces DEVICE', by the operator, lets one join set it anew. A device that draws its DevNonces has to be imported as 1.0.3 or lower. A network that brings an old frame again, or somebody who recorded one, looks the same.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s brought DevNonce %d of %s; the lowest that is accepted is %d", who(x), x.Received.Count, v.device, x.Decided.Next)
		},
		func(x *joinery.Refusal) string {
			switch {
			case uint32(x.Received.Count)+1 == x.Decided.Next:
				return "It is the very one that was accepted last: the same frame again, through another gateway or from a recording."
			case x.Received.Count < 16 && x.Decided.Next > 32:
				return "So low a value looks like a counter that began anew: a reset, or new firmware."
			}
			return ""
		},
	},
	{
		joinery.RefusedRJCountLow,
		"RJcount of the rejoin-request is not above the last.",
		"The device lost its counter, or the frame was recorded before. RJcount0 starts anew with the next join; RJcount1 lasts for the life of the device.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s brought RJcount %d of %s; the lowest that is accepted is %d", who(x), x.Received.Count, v.device, x.Decided.Next)
		},
		nil,
	},
	{
		joinery.RefusedDevNonceEnd,
		"The device has used all its DevNonces under this JoinEUI.",
		"Give it another JoinEUI, under which they start at 0, or 'joinctl device reset-nonces DEVICE', by the operator. See why it joins so often.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s, which has used all its DevNonces", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedRJCountEnd,
		"The device has used all values of RJcount.",
		"RJcount0 starts anew when the device joins; for RJcount1 it needs another JoinEUI.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s brought %s of %s, whose counter is at its end", who(x), frame(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedJoinNonceEnd,
		"All 16,777,215 JoinNonces of the device's keys were issued. None is ever issued twice.",
		"The device needs new root keys. See why it joins so often.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s, whose keys have no JoinNonce left", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedNSKEK,
		"There is no KEK to wrap network session keys for this network, and no consent of owner and operator to send them in the clear.",
		"Have the operator give the network a KEK: 'joinctl kek add PEER --role ns LABEL=FILE'.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s may join %s, and there is no KEK to wrap its session keys under", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedNoAS,
		"AppSKey has to be wrapped for the Application Server of the binding, and there is none of that AS-ID.",
		"Bind the device with the AS-ID of a known Application Server ('joinctl bind DEVICE --as-id AS-ID'), have the operator add it ('joinctl peer add'), or choose another way for AppSKey ('--app-s-key session-key-id').",
		func(x *joinery.Refusal, v voice) string {
			if x.Decided.ASID == "" {
				return fmt.Sprintf("%s may join %s, and its binding names no Application Server for which AppSKey could be wrapped", who(x), v.device)
			}
			return fmt.Sprintf("%s may join %s, and nobody here is Application Server %q, for which AppSKey has to be wrapped", who(x), v.device, x.Decided.ASID)
		},
		func(x *joinery.Refusal) string {
			if x.Decided.ASID == "" {
				return "A ChirpStack that decrypts payloads itself needs AppSKey in the clear: '--app-s-key clear', with the operator's consent for the peer."
			}
			return ""
		},
	},
	{
		joinery.RefusedASKEK,
		"There is no KEK to wrap AppSKey for the Application Server of the binding.",
		"Have the operator give the Application Server a KEK: 'joinctl kek add PEER --role as LABEL=FILE'. " +
			"Where the device's claim brought one that was retired, its network claims the device again with another.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("There is no KEK for Application Server %q, under which AppSKey of %s has to be wrapped", x.Decided.ASID, v.device)
		},
		nil,
	},
	{
		joinery.RefusedSessionUnknown,
		"The Application Server asked for AppSKey of a session that was never made here, or that was erased.",
		"See that it asks with the SessionKeyID of the JoinAns, and of the right device.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for AppSKey of %s by a SessionKeyID that names no session of it", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedOtherAS,
		"The session was made for another Application Server, which alone may have its AppSKey.",
		"If the one that asked should have it: 'joinctl bind DEVICE --as-id AS-ID', then have the device join anew.",
		func(x *joinery.Refusal, v voice) string {
			if x.Decided.ASID == "" {
				return fmt.Sprintf("%s asked for AppSKey of %s; that session was made for no Application Server", who(x), v.device)
			}
			return fmt.Sprintf("%s asked for AppSKey of %s; that session was made for %q only", who(x), v.device, x.Decided.ASID)
		},
		nil,
	},
	{
		joinery.RefusedSessionEnded,
		"The binding under which the session was made does not stand any more, so its AppSKey is given to nobody.",
		"Have the device join anew under the present binding.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for AppSKey of %s for a session made before the binding changed", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedNoRoaming,
		"A network asked where the device is at home, and is not on its roaming list.",
		"Nothing, unless the device should roam there: then put its NetID on the list ('joinctl roaming set').",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("Network %s asked where %s is at home, and is not on its roaming list", x.Received.NetID, v.device)
		},
		nil,
	},
	{
		joinery.RefusedUnavailable,
		"A part of this server did not answer in time, its database or its keyring.",
		"Nothing at the device: its next try counts. The operator looks at /readyz and at the log.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s while a part of this server did not answer", who(x), v.device)
		},
		nil,
	},
	{
		joinery.RefusedInternal,
		"A defect of this server.",
		"The operator finds the cause in the log, and should report it.",
		func(x *joinery.Refusal, v voice) string {
			return fmt.Sprintf("%s asked for %s, and this server failed", who(x), v.device)
		},
		nil,
	},
}

// hintNetID knows the NetIDs that say that none was set.
func hintNetID(x *joinery.Refusal) string {
	switch x.Received.NetID {
	case lorawan.NetID{}, lorawan.NetID{0, 0, 1}:
		return "000000 and 000001 are for experiments, and the default of most Network Servers: its own NetID was perhaps never set."
	}
	return ""
}

// hintRoot says which root key served.
func hintRoot(x *joinery.Refusal) string {
	if x.Received.Frame != "join" || !x.Decided.MACVersion.Valid() {
		return ""
	}
	if x.Decided.MACVersion.HasTwoRootKeys() {
		return "A 1.1 device signs join-requests with NwkKey, also on a 1.0 network; firmware that speaks 1.0.x signs with AppKey."
	}
	return fmt.Sprintf("Here %s serves this device, provisioned as %s.", x.Decided.Root10, x.Decided.MACVersion)
}

// who names the peer as it called itself.
func who(x *joinery.Refusal) string {
	switch {
	case x.Received.Message == "AppSKeyReq":
		return fmt.Sprintf("Application Server %q", x.Received.SenderID)
	case x.Received.Message == "":
		return "The peer"
	case !x.Received.NSID.IsZero():
		return fmt.Sprintf("Network %s (NSID %s)", x.Received.NetID, x.Received.NSID)
	}
	return "Network " + x.Received.NetID.String()
}

func message(x *joinery.Refusal) string {
	if x.Received.Message == "" {
		return "message"
	}
	return x.Received.Message
}

// frame names the frame for a sentence.
func frame(x *joinery.Refusal) string {
	switch x.Received.Frame {
	case "":
		return "a frame"
	case "join":
		return fmt.Sprintf("a join-request (DevNonce %d)", x.Received.Count)
	}
	return fmt.Sprintf("a %s-request of type %c (RJcount %d)", x.Received.Frame[:6], x.Received.Frame[7], x.Received.Count)
}
