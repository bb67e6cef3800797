package manifest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const headerHint = "begin with #cloud-config, or with #!/bin/sh for a script"

var (
	mailHeader = newPattern(`(?i)^(content-type|mime-version):`)
	nearHeader = newPattern(`(?i)^\s*#+\s*cloud[-_ ]?config\b`)
)

// userDataCheck looks at one user-data.
type userDataCheck struct {
	file  string
	text  []byte
	found Errors
}

func (c *userDataCheck) add(line, column int, warning bool, msg, hint string) {
	c.found = append(c.found, &Error{Position: Position{c.file, line, column}, Msg: msg, Hint: hint, Warning: warning})
}

func (c *userDataCheck) all() {
	first, _, _ := bytes.Cut(c.text, []byte("\n"))
	switch {
	case len(bytes.TrimSpace(c.text)) == 0:
		c.add(1, 1, false, "the user-data is empty", headerHint)
	case bytes.HasPrefix(c.text, []byte{0x1f, 0x8b}):
		// It is compressed, and cloud-init unpacks it.
	case bytes.HasPrefix(c.text, []byte("\xef\xbb\xbf")):
		c.add(1, 1, false, "begins with a byte order mark, so cloud-init does not see the header behind it", "save the file as UTF-8 without one")
	case mailHeader.MatchString(string(first)):
	case bytes.HasPrefix(first, []byte("#!")):
		if bytes.HasSuffix(first, []byte("\r")) {
			c.add(1, len(first), false, "the script has line ends of Windows, with which no interpreter is found", "save it with line feeds only")
		}
	case c.header(first):
		if header(first) == "#cloud-config" {
			c.cloudConfig()
		}
	}
}

// header is the header that a first line is, besides those of scripts, mail and
// compressed data; empty when it is none, which cloud-init takes for nothing at all.
func header(first []byte) string {
	line := strings.TrimRight(string(first), " \t\r")
	if strings.HasPrefix(line, "## template:") {
		return line
	}
	word, _, _ := strings.Cut(line, " ")
	switch word {
	case "#cloud-config", "#cloud-config-archive", "#cloud-config-jsonp", "#include", "#include-once", "#part-handler", "#cloud-boothook":
		return word
	default:
		return ""
	}
}

// header tells whether the first line is one, and says what is wrong when not.
// The line itself is not repeated: where there is no header there may be a secret.
func (c *userDataCheck) header(first []byte) bool {
	if header(first) != "" {
		return true
	}
	if nearHeader.MatchString(string(first)) {
		c.add(1, 1, false, "the first line is not exactly \"#cloud-config\", so cloud-init ignores all of it", "write #cloud-config, without spaces, at the very beginning")
		return false
	}
	for i, line := range bytes.Split(c.text, []byte("\n")) {
		if i > 0 && header(line) != "" && bytes.HasPrefix(line, []byte("#cloud")) {
			c.add(i+1, 1, false, "the header is not in the first line, so cloud-init ignores all of it", "move this line to the very beginning")
			return false
		}
	}
	c.add(1, 1, false, "the first line is no header that cloud-init knows, so it ignores all of it", headerHint)
	return false
}

// cloudConfig looks at YAML as cloud-init's reader does.
func (c *userDataCheck) cloudConfig() {
	if _, fault := cleanText(c.file, c.text); fault != nil {
		c.found = append(c.found, fault)
		return
	}
	docs, fault := parseDocuments(c.file, c.text)
	if fault != nil {
		c.found = append(c.found, tabFault(fault, c.text))
		return
	}
	if len(docs) > 1 {
		c.add(docs[1].Line, docs[1].Column, false, "a second document, which cloud-init does not read", "use one document, without ---")
		return
	}
	if len(docs) == 0 || len(docs[0].Content) == 0 || isNull(docs[0].Content[0]) {
		c.add(1, 1, true, "the cloud-config holds nothing", "")
		return
	}
	root := docs[0].Content[0]
	c.tabs(root, bytes.Split(c.text, []byte("\n")), Position{})
	if root.Kind != yaml.MappingNode {
		c.add(root.Line, root.Column, false, "a cloud-config is a mapping, not "+kindWords(root), "write keys such as packages: and runcmd:")
		return
	}
	c.keys(root)
}

// tabFault puts a fault of YAML at the tab that the line begins with, if there is one:
// behind dashes, too, for they indent as well.
func tabFault(fault *Error, text []byte) *Error {
	lines := bytes.Split(text, []byte("\n"))
	if at := fault.Position.Line; at >= 1 && at <= len(lines) {
		line := lines[at-1]
		begin := line[:len(line)-len(bytes.TrimLeft(line, " \t-"))]
		if tab := bytes.IndexByte(begin, '\t'); tab >= 0 {
			fault.Position.Column, fault.Hint = tab+1, "a tab cannot indent YAML; use spaces"
		}
	}
	return fault
}

// kindWords is what a node is, without what it holds.
func kindWords(n *yaml.Node) string {
	if n.Kind == yaml.SequenceNode {
		return "a list"
	}
	return "a text"
}

// tabs finds tabs where cloud-init's reader of YAML takes none, although others do:
// between a key or a dash and what follows it.
func (c *userDataCheck) tabs(n *yaml.Node, lines [][]byte, parent Position) {
	at := Position{Line: n.Line, Column: n.Column}
	if at != parent && n.Line >= 1 && n.Line <= len(lines) {
		before := []rune(string(lines[n.Line-1]))
		before = before[:min(max(n.Column-1, 0), len(before))]
		for i := len(before) - 1; i >= 0 && (before[i] == ' ' || before[i] == '\t'); i-- {
			if before[i] == '\t' {
				c.add(n.Line, i+1, false, "a tab, which cloud-init's reader does not take for space", "use spaces")
				break
			}
		}
	}
	for _, child := range n.Content {
		c.tabs(child, lines, at)
	}
}

// keys warns of top-level keys that cloud-init does not know: a newer one may.
func (c *userDataCheck) keys(root *yaml.Node) {
	known := cloudConfigKeys()
	seen := keySet{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key := root.Content[i]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			continue
		}
		if line, ok := seen[key.Value]; ok {
			c.add(key.Line, key.Column, true, fmt.Sprintf("the key %s is given a second time, and cloud-init takes the last one only", quote(key.Value)), fmt.Sprintf("the first is in line %d; join them", line))
		}
		seen[key.Value] = key.Line
		switch {
		case slices.Contains(known, key.Value):
		case key.Value == "network":
			c.add(key.Line, key.Column, true, "cloud-init takes no network configuration from user-data", "use spec.cloudInit.networkConfig")
		default:
			hint := didYouMean(key.Value, known)
			if hint == "" {
				hint = "see cloud-init's list of modules; a newer cloud-init may know it"
			}
			c.add(key.Line, key.Column, true, quote(key.Value)+" is no key of cloud-config known to maqet", hint)
		}
	}
}

// cloudConfigKeys are the top-level keys of cloud-init's schema.
func cloudConfigKeys() []string {
	return strings.Fields(`
		allow_public_ssh_keys ansible apk_repos apt apt_pipelining apt_reboot_if_required apt_update apt_upgrade
		authkey_hash autoinstall bootcmd byobu_by_default ca-certs ca_certs chef chpasswd cloud_config_modules
		cloud_final_modules cloud_init_modules create_hostname_file datasource datasource_list debug def_log_file
		device_aliases disable_ec2_metadata disable_piwiz disable_root disable_root_opts disk_setup drivers
		enable_rpi_connect fan final_message fqdn fs_setup groups growpart grub-dpkg grub_dpkg hostname keyboard
		landscape launch-index locale locale_configfile log_cfgs lxd manage_etc_hosts manage_resolv_conf mcollective
		merge_how merge_type migrate mount_default_fields mounts no_ssh_fingerprints ntp output
		package_reboot_if_required package_update package_upgrade packages password phone_home power_state
		prefer_fqdn_over_hostname preserve_hostname puppet random_seed reporting resize_rootfs resolv_conf
		rh_subscription rpi_interfaces rpi_userconf rsyslog runcmd salt_minion snap spacewalk ssh
		ssh_authorized_keys ssh_deletekeys ssh_fp_console_blacklist ssh_genkeytypes ssh_import_id
		ssh_key_console_blacklist ssh_keys ssh_publish_hostkeys ssh_pwauth ssh_quiet_keygen swap syslog_fix_perms
		system_info timezone ubuntu_advantage ubuntu_pro updates user users vendor_data version wireguard write_files
		yum_repo_dir yum_repos zypper`)
}
